"""The reads of one call, which include the writes that the call's consistency token names."""

from collections.abc import Sequence
from typing import Any

import msgspec

from contracts.view_layout import View
from query_server.counters import parse_counters
from query_server.freshness import Freshness
from query_server.not_found import Archived, NotFound
from query_server.view_reader import StoredView, ViewReader
from runtime.grpc.request_tokens import RequestTokens
from runtime.grpc.rpc_error import RpcError
from runtime.redis.pipeline import Command


# Every call makes one, so it is cheap: a struct that the garbage collector need not track.
class FreshReader(msgspec.Struct, frozen=True, gc=False):
    """Reads the views of one projection for one call.

    Every method raises

        RpcError: the errors of `Freshness.read` and of `ViewReader`.
    """

    views: ViewReader
    freshness: Freshness
    """The fresh reads of the projection."""
    token: str = ""
    """The consistency token whose writes the reads have to include; empty for none."""
    deadline: float | None = None
    """The call's deadline, from `compute_deadline`; None if it has none."""
    others: tuple["FreshReader", ...] = ()
    """Readers of the other projections that the query reads."""
    index: Any = None
    """The `IndexFollower` of the query's index; None if it has none."""

    @property
    def view(self) -> View:
        """The layout of the views in the generation that the call reads."""
        return self.views.view

    @property
    def tokens(self) -> RequestTokens:
        """Mints and reads page tokens."""
        return self.freshness.tokens

    async def get(self, view_id: str, missing: NotFound) -> bytes:
        """Return a serialised view.

        Raises:
            RpcError: `missing`, the view does not exist; `VIEW_ARCHIVED`.
        """
        found: bytes | Archived | None
        if self.token:
            (fields,) = await self._read(self.views.data_command(view_id))
            data = self.views.select_data(*fields)
            # What a later read returns includes the token's writes, too.
            found = self.views.check(view_id, data) if data else await self.views.find(view_id)
        else:
            found = await self.views.get(view_id)
        if isinstance(found, Archived):
            raise missing.archived_error(found, view_id)
        if not found:
            raise missing.error(view_id)
        return found

    async def get_all(self, view_ids: Sequence[str]) -> Sequence[StoredView | Archived]:
        """Return serialised views, the tombstones of archived ones, errors for unreadable ones, else None."""
        views: list[StoredView | Archived] = [*await self._get_all(view_ids)]
        if absent := [position for position, data in enumerate(views) if not data]:
            found = await self.views.find_all([view_ids[position] for position in absent])
            for position, view in zip(absent, found, strict=True):
                views[position] = view
        return views

    async def _get_all(self, view_ids: Sequence[str]) -> Sequence[StoredView]:
        if not self.token:
            return await self.views.get_all(view_ids)
        try:
            rows = await self._read(*map(self.views.data_command, view_ids))
        except RpcError as error:
            if error.reason != "VIEW_UNREADABLE":
                raise
            return [None] * len(view_ids)
        return self.views.check_all(view_ids, [self.views.select_data(*row) for row in rows])

    async def get_history(self, view_id: str, missing: NotFound) -> range:
        """Return the versions that have an entry in a view's history.

        Raises:
            RpcError: `missing`, the view does not exist; `VIEW_ARCHIVED`.
        """
        views = self.views
        fields = (
            "version",
            "history_from",
            "archived",
            "parked",
            *(("data", "owner") if views.owners else ()),
        )
        command = ("HMGET", self.view.key(view_id), *fields)
        try:
            ((stored, first, archived, parked, *own),) = await self._read(command)
        except RpcError as error:
            if views.hides_failure(error):
                raise missing.error(view_id) from error
            raise
        if own and views.hides(own[1:], own[0]):
            raise missing.error(view_id)
        if parked:
            self.views.age.include_parked(parked)
        version = self.views.parse_version(view_id, stored)
        if not version:
            raise missing.error(view_id)
        if archived:
            tombstone = Archived(version, self.views.parse_version(view_id, archived))
            raise missing.archived_error(tombstone, view_id)
        return range(self.views.parse_version(view_id, first) or 1, version + 1)

    async def get_counters(self, key: str) -> dict[str, int]:
        """Return the counters under a key (`View.counters`, `View.event_counters`) by name."""
        (reply,) = await self.read(("HGETALL", key))
        return parse_counters(key, reply)

    async def read(self, *commands: Command) -> list[Any]:
        """Return replies that were read while the projection had caught up."""
        self.views.check_reaches_all()
        self.views.age.include_all()  # they may be about any view
        return await self._read(*commands)

    async def _read(self, *commands: Command) -> list[Any]:
        if self.token:
            return await self.freshness.read(self.token, *commands, deadline=self.deadline, views=self.views)
        _, replies = await self.views.read_while_ready(*commands)
        return replies

    async def wait_until_fresh(self) -> None:
        """Wait until every later read of `views` includes the writes of the token."""
        if self.token:
            await self.freshness.read(self.token, deadline=self.deadline, views=self.views)
