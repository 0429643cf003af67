"""Reads the views of a projection, and decides whether a missing key proves that a view does not exist.

Redis may have been flushed, or a projection may be rebuilding. A view that exists is returned even then. A
missing key proves absence only if the projection's caught-up marker was the same before and after the read.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from contracts.view_layout import View, index_bound
from query_server.not_found import Archived
from query_server.redis_client import Command, RedisClient
from query_server.timestamps import Period
from runtime.grpc.response_size import MAX_PAGE_BYTES, PageBudget
from runtime.grpc.rpc_error import RpcError
from runtime.process import logs

log = logs.get_logger(__name__)

_decode_entries = msgspec.json.Decoder(list[tuple[str, str]]).decode


class Window(msgspec.Struct, frozen=True):
    """A range of an index: the members from `low` on and below `high`; an empty bound is no bound."""

    index: str
    low: str = ""
    high: str = ""

    @classmethod
    def of_period(cls, index: str, period: Period) -> "Window":
        """Return the range of the members of a period's times."""
        low, high = ("" if bound is None else index_bound(bound) for bound in (period.start, period.end))
        return cls(index, low, high)

    def __str__(self) -> str:
        return f"{self.index} {self.low} {self.high}"


class ListedView(msgspec.Struct, frozen=True):
    """A serialised view with its current index entries, as (index key, member)."""

    data: bytes
    entries: Sequence[tuple[str, str]]


class ViewReader:
    """Reads the views of one projection.

    Args:
        redis: the connection.
        view: the layout of the views.
        max_page_bytes: the maximum size of the items of one response.

    Every method that reads raises

        RpcError: `VIEW_REBUILDING`, the projection has not caught up, so absence proves nothing;
            `READ_MODEL_UNAVAILABLE`, Redis is unreachable.
    """

    def __init__(self, redis: RedisClient, view: View, max_page_bytes: int = MAX_PAGE_BYTES) -> None:
        self.view = view
        self._redis = redis
        self._max_page_bytes = max_page_bytes
        self._read_marker: Command = ("GET", view.ready)

    async def get(self, view_id: str) -> bytes | Archived | None:
        """Return a serialised view, its tombstone if it is archived, or None if it does not exist."""
        data: bytes | None = await self._redis.call(*self.data_command(view_id))
        if data:
            return data
        # A marker proves nothing about a read before it, so a missing view is read again between two markers.
        return (await self.find([view_id]))[0]

    async def find(self, view_ids: Sequence[str]) -> list[bytes | Archived | None]:
        """Return serialised views, the tombstones of those that are archived, and None for all others."""
        commands: list[Command] = [
            ("HMGET", self.view.key(view_id), "data", "version", "archived") for view_id in view_ids
        ]
        _, rows = await self.read_while_ready(*commands)
        return [
            data or (Archived(int(version), int(archived)) if archived else None)
            for data, version, archived in rows
        ]

    async def get_all(self, view_ids: Sequence[str]) -> list[bytes | None]:
        """Return serialised views, each None if it does not exist or is archived."""
        before, *views, after = await self._redis.pipeline(
            self._read_marker, *map(self.data_command, view_ids), self._read_marker
        )
        if not all(views):
            self._check_ready(before, after)
        return [data or None for data in views]

    async def read_while_ready(self, *commands: Command) -> tuple[str, list[Any]]:
        """Return replies that were read while the projection had caught up.

        Returns:
            The incarnation of the database that the projection follows, and the replies.
        """
        before, *replies, after = await self._redis.pipeline(self._read_marker, *commands, self._read_marker)
        return self._check_ready(before, after), replies

    def create_budget(self) -> PageBudget:
        """Return the bytes that the items of one response may have."""
        return PageBudget(self._max_page_bytes)

    def rebuilding_error(self) -> RpcError:
        name = {"projection": self.view.projection}
        return RpcError("VIEW_REBUILDING", "the view is being rebuilt", name, retry_after=1.0)

    def _check_ready(self, before: bytes | None, after: bytes | None) -> str:
        """Return the incarnation in the caught-up marker, read before and after other commands."""
        if before is None or before != after:
            raise self.rebuilding_error()
        return before.decode()

    async def get_members(self, window: Window, after: str, count: int) -> list[str]:
        """Return members of a range of an index, newest first.

        Args:
            window: the range.
            after: the member before the first result; empty to begin with the newest.
            count: the maximum number of members.
        """
        below = after or window.high
        top, bottom = f"({below}" if below else "+", f"[{window.low}" if window.low else "-"
        _, (members,) = await self.read_while_ready(
            ("ZRANGE", window.index, top, bottom, "BYLEX", "REV", "LIMIT", 0, count)
        )
        return [member.decode() for member in members]

    async def get_listed_views(self, view_ids: Sequence[str]) -> list[ListedView | None]:
        """Return views with their index entries, each None if it does not exist."""
        commands = [("HMGET", self.view.key(view_id), "data", "entries") for view_id in view_ids]
        _, rows = await self.read_while_ready(*commands)
        return [ListedView(data, self._decode_entries(entries)) if data else None for data, entries in rows]

    def _decode_entries(self, entries: bytes | None) -> Sequence[tuple[str, str]]:
        """Return a view's index entries; none if they cannot be read, so that lists go on without it."""
        try:
            return _decode_entries(entries or b"[]")
        except msgspec.MsgspecError as error:
            log.error("Index entries cannot be read", projection=self.view.projection, error=repr(error))
            return ()

    async def get_history_entries(self, view_id: str, versions: Sequence[int]) -> list[bytes]:
        """Return the serialised history entries of these versions of a view."""
        _, (entries,) = await self.read_while_ready(("HMGET", self.view.history(view_id), *versions))
        if None in entries:  # a rebuild has deleted entries since the view's version was read
            raise self.rebuilding_error()
        return list(entries)

    def data_command(self, view_id: str) -> Command:
        """Return the command that reads a serialised view."""
        return ("HGET", self.view.key(view_id), "data")

    def version_command(self, view_id: str) -> Command:
        """Return the command that reads a view's version."""
        return ("HGET", self.view.key(view_id), "version")
