"""The entries of one history. One that cannot be read shows its version alone, and the others go on.

An entry's bytes are returned as they are stored, once they have been parsed as its message, like a view's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from google.protobuf.message import DecodeError, Message

from query_server.redis_client import unreadable
from query_server.view_reader import ViewReader
from runtime.grpc.rpc_error import RpcError
from runtime.redis.pipeline import Command

ReadTime = Callable[[bytes], int]
"""Returns the time of a serialised history entry, in nanoseconds since 1970."""


class HistoryEntries(msgspec.Struct, frozen=True):
    """Reads the entries of one history.

    Args:
        views: the projection.
        view_id: the view's id.
        message: the entries' message type, which has a field `version`; without it nothing is parsed, and a
            missing entry is an error.
    """

    views: ViewReader
    view_id: str
    message: type[Message] | None = None

    async def read(self, versions: Sequence[int]) -> list[bytes]:
        """Return serialised entries; one that cannot be read has its version alone.

        Raises:
            RpcError: `VIEW_UNREADABLE`, an entry is missing and its message type is unknown.
        """
        entries = await self._read_stored(versions)
        return [
            data if data is not None and self._is_readable(version, data) else self._make_empty(version)
            for version, data in zip(versions, entries, strict=True)
        ]

    async def read_first(self, versions: Sequence[int]) -> bytes:
        """Return the entry of the first of these versions that has one: a skipped event has none.

        Raises:
            RpcError: `VIEW_UNREADABLE`, none of them has one.
        """
        for chunk in filter(None, (versions[:1], versions[1:])):  # in general the first one has
            for version, data in zip(chunk, await self._read_stored(chunk), strict=True):
                if data is not None and self._is_readable(version, data):
                    return data
        raise self._describe(versions[0])

    async def read_times(self, versions: Sequence[int], read_time: ReadTime) -> list[int]:
        """Return the entries' times; for one that cannot be read, that of the entry before it."""
        times: list[int] = []
        for data in await self._read_stored(versions):
            try:
                times.append(read_time(data or b""))
            except DecodeError:
                times.append(0)
            if data is None or times[-1] == 0:
                times[-1] = times[-2] if len(times) > 1 else 0
        return times

    async def _read_stored(self, versions: Sequence[int]) -> list[bytes | None]:
        """Return serialised entries as they are stored, each None if it is missing."""
        command: Command = ("HMGET", self.views.view.history(self.view_id), *versions)
        _, (entries,) = await self.views.read_while_ready(command)
        if None in entries:
            # A rebuild or housekeeping has deleted entries since the view was read, unless it still has them.
            fields = ("HMGET", self.views.view.key(self.view_id), "version", "history_from", "archived")
            _, (view, entries) = await self.views.read_while_ready(fields, command)
            last, first = (self.views.parse_version(self.view_id, each) for each in view[:2])
            if view[2] or min(versions) < first or last < max(versions):
                raise self.views.rebuilding_error()
        return list(entries)

    def _is_readable(self, version: int, data: bytes) -> bool:
        try:
            if self.message is not None:
                self.message.FromString(data)
        except DecodeError:
            self._describe(version)  # for the log
            return False
        return True

    def _make_empty(self, version: int) -> bytes:
        if self.message is None:
            raise self._describe(version)
        fields: dict[str, Any] = {"version": version}
        return self.message(**fields).SerializeToString()

    def _describe(self, version: int) -> RpcError:
        return unreadable(self.views.view.history(self.view_id), f"entry {version}")
