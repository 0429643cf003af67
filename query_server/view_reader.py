"""Reads the views of a projection, and decides whether a missing key proves that a view does not exist.

Redis may have been flushed, or a projection may be rebuilding. Until it has caught up, its views are older
than those that were served before, and a missing key proves nothing. So nothing is returned unless the
projection's caught-up marker was there before the read. Absence needs more: the same marker before and after.

A reader is of one generation. It reads the name of the serving generation in the same command as the
marker, so Redis itself decides of which generation an answer is. If the name is another one,
`GenerationSwitched` takes the call back to its beginning, and it runs again on a reader of that generation
(query_server/service.py).

Views are returned as they are stored, but each is parsed first (0.4 us for an order of one line): a view that
no client could read fails alone, and not the list or batch that it is in.

The reader of a caller who reaches its own objects alone (`for_answer`) reads the owner of each view in the
same command, and takes the views of others for missing ones, whatever is the matter with them.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
from google.protobuf.message import DecodeError

from contracts.generations import decode_serving
from contracts.view_layout import GENERATION, View, index_bound
from query_server.not_found import Archived
from query_server.redis_client import RedisClient, unreadable
from query_server.staleness import AnswerAge
from query_server.timestamps import Period
from runtime.grpc.response_size import MAX_PAGE_BYTES, PageBudget
from runtime.grpc.rpc_error import RpcError
from runtime.process import logs
from runtime.redis.pipeline import Command

log = logs.get_logger(__name__)

_decode_entries = msgspec.json.Decoder(list[tuple[str, str]]).decode
_encode_entry = msgspec.json.Encoder().encode


class GenerationSwitched(Exception):
    """Another generation serves than the reader's; the call begins again on that one. No client sees this."""

    def __init__(self, projection: str, generation: str) -> None:
        super().__init__(projection, generation)
        self.projection = projection
        self.generation = generation


StoredView = bytes | RpcError | None
"""A serialised view; None if it does not exist, an error if it cannot be read."""


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
    """A serialised view with its current index entries, as JSON."""

    data: bytes
    entries: bytes


class ViewReader:
    """Reads the views of one projection.

    Args:
        redis: the connection.
        view: the layout of the views.
        max_page_bytes: the maximum size of the items of one response.

    Every method that reads raises

        RpcError: `VIEW_REBUILDING`, the projection has not caught up, so absence proves nothing;
            `READ_MODEL_UNAVAILABLE`, Redis is unreachable; `VIEW_UNREADABLE`, the stored data cannot be read.
        GenerationSwitched: another generation serves.
    """

    owners: frozenset[str] | None = None
    """The persons whose views exist for the caller; None for everybody's."""
    owner_fields: tuple[str, ...] = ()
    """`owner`, the last field of each read of a view's hash, if it matters; `hides` takes its value."""

    def __init__(self, redis: RedisClient, view: View, max_page_bytes: int = MAX_PAGE_BYTES) -> None:
        self.view = view
        self._redis = redis
        self._max_page_bytes = max_page_bytes
        self._read_marker: Command = ("MGET", view.serving, view.ready)
        name = view.generation.encode()
        self._serving_names = (None, b"", name) if view.generation == GENERATION else (name,)
        """The values of `view.serving` with which this generation serves."""
        self._parse = view.message.FromString
        self.age = AnswerAge()
        """Told of the parked views that are read."""
        self._unreadable_entries = logs.LimitedErrors(
            log, "Index entries cannot be read", projection=view.projection
        )

    def for_answer(self, age: AnswerAge, owners: frozenset[str] | None = None) -> "ViewReader":
        """Return a reader for one answer, which tells `age` of the parked views that it reads.

        Args:
            age: the age of the answer.
            owners: the persons whose views exist for the caller; None for everybody's.
        """
        reader = ViewReader.__new__(ViewReader)
        reader.__dict__.update(self.__dict__)
        reader.age = age
        if owners is not None:
            reader.owners = owners
            reader.owner_fields = ("owner",)
        return reader

    def hides(self, owner: Sequence[bytes | None], data: bytes | None) -> bool:
        """Return whether a view does not exist for the caller, because it belongs to somebody else.

        Args:
            owner: the reply to `owner_fields`.
            data: the serialised view, which tells the owner if an earlier release has written its hash.
        """
        if self.owners is None:
            return False
        if (stored := owner[0]) is not None:
            return stored.decode(errors="replace") not in self.owners
        if data and self.view.owner:
            with suppress(DecodeError):
                return getattr(self._parse(data), self.view.owner) not in self.owners
        return True

    def check_reaches_all(self) -> None:
        """Check that a read that is not about one view is not for a caller who reaches its own objects alone.

        Raises:
            RuntimeError: it is; the request of such a method must name the owner.
        """
        if self.owners is not None:
            raise RuntimeError(f"{self.view.projection}: a list or sum whose request does not name the owner")

    def hides_failure(self, error: RpcError) -> bool:
        """Return whether the error of an unreadable hash must be hidden: it may be somebody else's."""
        return self.owners is not None and error.reason == "VIEW_UNREADABLE"

    async def get(self, view_id: str) -> bytes | Archived | None:
        """Return a serialised view, its tombstone if it is archived, or None if it does not exist."""
        try:
            (serving, marker), row = await self._redis.call_behind(
                self._read_marker, self.data_command(view_id)
            )
        except RpcError as error:
            await self._check_failed_read(error)
            if self.hides_failure(error):
                return None
            raise
        if serving not in self._serving_names:
            self._check_serving(serving)
        if marker is None:
            raise self.rebuilding_error()
        data, parked = row[0], row[1]
        if data and (self.owners is None or not self.hides(row[2:], data)):
            if parked:
                self.age.include_parked(parked)
            return self.check(view_id, data)
        # A marker proves nothing about a read before it, so a missing view is read again between two markers.
        return await self.find(view_id)

    async def find(self, view_id: str) -> bytes | Archived | None:
        """Return a serialised view or tombstone as `get` does, read while the projection had caught up."""
        try:
            _, (fields,) = await self.read_while_ready(self.find_command(view_id))
        except RpcError as error:
            if self.hides_failure(error):
                return None
            raise
        return self.check_found(view_id, *fields)

    def find_command(self, view_id: str) -> Command:
        """Return the command that reads a view or its tombstone; `check_found` takes its reply."""
        key = self.view.key(view_id)
        return ("HMGET", key, "data", "version", "archived", "parked", *self.owner_fields)

    def check_found(
        self,
        view_id: str,
        data: bytes | None,
        version: bytes | None,
        archived: bytes | None,
        parked: bytes | None,
        *owner: bytes | None,
    ) -> bytes | Archived | None:
        """Return the view or the tombstone in these fields of a hash; None if there is neither.

        Raises:
            RpcError: `VIEW_UNREADABLE`.
        """
        if self.hides(owner, data):
            return None
        if parked:
            self.age.include_parked(parked)
        if data:
            return self.check(view_id, data)
        number = self.parse_version(view_id, version)
        if archived and archived.isdigit():
            return Archived(number, int(archived))
        if number:
            raise unreadable(self.view.key(view_id), "no data")
        return None

    async def find_all(self, view_ids: Sequence[str]) -> list[StoredView | Archived]:
        """Return views as `find` does, an error in the place of each that cannot be read."""
        return await asyncio.gather(*map(self._find_or_describe, view_ids))

    async def _find_or_describe(self, view_id: str) -> StoredView | Archived:
        try:
            return await self.find(view_id)
        except RpcError as error:
            if error.reason != "VIEW_UNREADABLE":
                raise
            return error

    async def get_all(self, view_ids: Sequence[str]) -> list[StoredView]:
        """Return serialised views, each None if it must be found by another read (`find_all`)."""
        try:
            _, rows = await self.read_while_ready(*map(self.data_command, view_ids))
        except RpcError as error:
            if error.reason != "VIEW_UNREADABLE":
                raise
            return [None] * len(view_ids)
        return self.check_all(view_ids, [self.select_data(*row) for row in rows])

    def select_data(self, data: bytes | None, parked: bytes | None, *owner: bytes | None) -> bytes | None:
        """Return the serialised view in a reply to `data_command`."""
        if self.hides(owner, data):
            return None
        if parked:
            self.age.include_parked(parked)
        return data

    def check_all(self, view_ids: Sequence[str], views: Sequence[bytes | None]) -> list[StoredView]:
        """Return serialised views, an error in the place of each that cannot be read."""
        parse = self._parse
        try:  # all at once: a batch has up to 100
            for data in views:
                if data:
                    parse(data)
        except DecodeError:
            return self._check_each(view_ids, views)
        return [data or None for data in views]

    def _check_each(self, view_ids: Sequence[str], views: Sequence[bytes | None]) -> list[StoredView]:
        result: list[StoredView] = []
        for view_id, data in zip(view_ids, views, strict=True):
            try:
                result.append(self.check(view_id, data) if data else None)
            except RpcError as error:
                result.append(error)
        return result

    def check(self, view_id: str, data: bytes) -> bytes:
        """Return a serialised view, once it has been parsed.

        Raises:
            RpcError: `VIEW_UNREADABLE`.
        """
        try:
            self._parse(data)
        except DecodeError as error:
            raise unreadable(self.view.key(view_id), str(error)) from error
        return data

    def parse_version(self, view_id: str, version: bytes | None) -> int:
        """Return a view's version; 0 for none.

        Raises:
            RpcError: `VIEW_UNREADABLE`, it is no number.
        """
        if version and not version.isdigit():
            raise unreadable(self.view.key(view_id), f"version {version!r}")
        return int(version or 0)

    async def read_while_ready(self, *commands: Command) -> tuple[str, list[Any]]:
        """Return replies that were read while the projection had caught up.

        Returns:
            The incarnation of the database that the projection follows, and the replies.
        """
        try:
            before, *replies, after = await self._redis.pipeline(
                self._read_marker, *commands, self._read_marker
            )
        except RpcError as error:
            await self._check_failed_read(error)
            raise
        return self._check_ready(before, after), replies

    def create_budget(self) -> PageBudget:
        """Return the bytes that the items of one response may have."""
        return PageBudget(self._max_page_bytes)

    def rebuilding_error(self) -> RpcError:
        name = {"projection": self.view.projection}
        return RpcError("VIEW_REBUILDING", "the view is being rebuilt", name, retry_after=1.0)

    def _check_serving(self, name: bytes | None) -> None:
        """Check the serving generation.

        Raises:
            GenerationSwitched: it is not this one.
        """
        if name in self._serving_names:
            return
        if (generation := decode_serving(name)) != self.view.generation:
            raise GenerationSwitched(self.view.projection, generation)

    async def _check_failed_read(self, error: RpcError) -> None:
        """Check that data that cannot be read is of the serving generation."""
        if error.reason == "VIEW_UNREADABLE":
            ((serving,),) = await self._redis.pipeline(("MGET", self.view.serving))
            self._check_serving(serving)

    def _check_ready(self, before: list[bytes | None], after: list[bytes | None]) -> str:
        """Return the incarnation in the caught-up marker, read before and after other commands."""
        self._check_serving(before[0])
        self._check_serving(after[0])
        incarnation = before[1]
        if incarnation is None or incarnation != after[1]:
            raise self.rebuilding_error()
        return incarnation.decode()

    async def get_members(self, window: Window, after: str, count: int) -> list[str]:
        """Return members of a range of an index, newest first.

        Args:
            window: the range.
            after: the member before the first result; empty to begin with the newest.
            count: the maximum number of members.
        """
        ((_, members),) = await self.get_merged_members((window,), after, count)
        return members

    async def get_merged_members(
        self, windows: Sequence[Window], after: str, count: int
    ) -> list[tuple[str, list[str]]]:
        """Return each window's index with its members as `get_members` does, in one round trip."""
        self.check_reaches_all()
        self.age.include_all()
        commands: list[Command] = []
        for window in windows:
            below = after or window.high
            top, bottom = f"({below}" if below else "+", f"[{window.low}" if window.low else "-"
            commands.append(("ZRANGE", window.index, top, bottom, "BYLEX", "REV", "LIMIT", 0, count))
        _, replies = await self.read_while_ready(*commands)
        return [
            (window.index, [member.decode(errors="replace") for member in members])
            for window, members in zip(windows, replies, strict=True)
        ]

    async def get_listed_views(self, view_ids: Sequence[str]) -> list[ListedView | RpcError | None]:
        """Return views with their index entries, each None if missing, an error if it cannot be read."""
        try:
            return await self._read_listed_views(view_ids)
        except RpcError as error:
            if error.reason != "VIEW_UNREADABLE":
                raise
            if len(view_ids) == 1:
                return [error]
        each = await asyncio.gather(*(self.get_listed_views([view_id]) for view_id in view_ids))
        return [view for views in each for view in views]

    async def _read_listed_views(self, view_ids: Sequence[str]) -> list[ListedView | RpcError | None]:
        key, fields = self.view.key, ("data", "entries", *self.owner_fields)
        _, rows = await self.read_while_ready(*(("HMGET", key(view_id), *fields) for view_id in view_ids))
        views = self.check_all(
            view_ids, [None if self.hides(owner, data) else data for data, _, *owner in rows]
        )
        return [
            ListedView(view, row[1] or b"[]") if isinstance(view, bytes) else view
            for view, row in zip(views, rows, strict=True)
        ]

    def has_entry(self, view: ListedView, entry: tuple[str, str]) -> bool:
        """Return whether a view has an index entry: an index key and a member.

        Entries that cannot be read are none, so that lists go on without their view.
        """
        # Projectors write them as here, so the text is there; within a string its quotes would be escaped.
        if _encode_entry(entry) in view.entries:
            return True
        try:
            return entry in _decode_entries(view.entries)
        except msgspec.MsgspecError as error:
            self._unreadable_entries.report(error=repr(error))
            return False

    def data_command(self, view_id: str) -> Command:
        """Return the command that reads a serialised view; `select_data` takes its reply."""
        if self.owners is None:
            return ("HMGET", self.view.key(view_id), "data", "parked")
        return ("HMGET", self.view.key(view_id), "data", "parked", *self.owner_fields)

    def version_command(self, view_id: str, column: str = "version") -> Command:
        """Return the command that reads a view's version, and the record of its parked aggregate.

        Args:
            view_id: the view's id.
            column: `View.find_version_column`.
        """
        return ("HMGET", self.view.key(view_id), column, "parked")
