"""A projection's views as the projector left them in Redis, and whether they are all there.

Redis may have been flushed, or the projection may still be filling. What is found is an answer even then;
that something is not there is one only while the projection's presence mark stands.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from contracts.view_layout import View
from query_server.reader import Command, Reader
from runtime.grpc.rpc_error import RpcError

_entries = msgspec.json.Decoder(list[tuple[str, str]]).decode


class Window(msgspec.Struct, frozen=True):
    """A part of an index: all members from a lower bound on and below an upper one; empty for no bound."""

    index: str
    low: str = ""
    high: str = ""

    def __str__(self) -> str:
        return f"{self.index} {self.low} {self.high}"


class ListedView(msgspec.Struct, frozen=True):
    """A view as a list needs it: its bytes, and which index entries it has now."""

    data: bytes
    entries: Sequence[tuple[str, str]]


class ViewReader:
    """Reads the views of one projection.

    Every method raises

        Refusal: `VIEW_REBUILDING`, the projection has not caught up, so absence proves nothing;
            `READ_MODEL_UNAVAILABLE`, Redis is away.
    """

    def __init__(self, reader: Reader, view: View) -> None:
        self.view = view
        self._reader = reader
        self._ready: Command = ("GET", view.ready)

    async def get(self, view_id: str) -> bytes | None:
        """Return a serialised view, or None where there certainly is none."""
        data: bytes | None = await self._reader.call(*self.data_of(view_id))
        if data:
            return data
        _, (data,) = await self.complete(self.data_of(view_id))
        return data or None

    async def get_all(self, view_ids: Sequence[str]) -> list[bytes | None]:
        """Return serialised views, None for each where there certainly is none."""
        before, *found, after = await self._reader.pipeline(
            self._ready, *map(self.data_of, view_ids), self._ready
        )
        if not all(found):
            self._incarnation(before, after)
        return [data or None for data in found]

    async def complete(self, *commands: Command) -> tuple[str, list[Any]]:
        """Return replies that were read while the projection held everything.

        Returns:
            The incarnation of the database that the projection follows, and the replies.
        """
        before, *replies, after = await self._reader.pipeline(self._ready, *commands, self._ready)
        return self._incarnation(before, after), replies

    def rebuilding(self) -> RpcError:
        """Return the refusal of whatever needs more than is there."""
        name = {"projection": self.view.projection}
        return RpcError("VIEW_REBUILDING", "the view is being rebuilt", name, retry_after=1.0)

    def _incarnation(self, before: bytes | None, after: bytes | None) -> str:
        """Return the presence mark, if it stood before and after a look."""
        if before is None or before != after:
            raise self.rebuilding()
        return before.decode()

    async def members(self, window: Window, after: str, count: int) -> list[str]:
        """Return members of a part of an index, newest first.

        Args:
            window: which part of which index.
            after: the member that the answer follows on; empty to begin with the newest.
            count: how many members at the most.
        """
        below = after or window.high
        top, bottom = f"({below}" if below else "+", f"[{window.low}" if window.low else "-"
        _, (members,) = await self.complete(
            ("ZRANGE", window.index, top, bottom, "BYLEX", "REV", "LIMIT", 0, count)
        )
        return [member.decode() for member in members]

    async def listed(self, view_ids: Sequence[str]) -> list[ListedView | None]:
        """Return several views with their entries; None for each that is not there."""
        commands = [("HMGET", self.view.key(view_id), "data", "entries") for view_id in view_ids]
        _, found = await self.complete(*commands)
        return [ListedView(data, _entries(entries or b"[]")) if data else None for data, entries in found]

    async def history_entries(self, view_id: str, versions: Sequence[int]) -> list[bytes]:
        """Return what the events of these versions told in a view's log, serialised."""
        _, (entries,) = await self.complete(("HMGET", self.view.history(view_id), *versions))
        if None in entries:  # wiped since the view's version was read
            raise self.rebuilding()
        return list(entries)

    def data_of(self, view_id: str) -> Command:
        """Return the command that reads a serialised view."""
        return ("HGET", self.view.key(view_id), "data")

    def version_of(self, view_id: str) -> Command:
        """Return the command that reads a view's version."""
        return ("HGET", self.view.key(view_id), "version")
