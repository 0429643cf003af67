"""Retrying parked aggregates of a projection, and folding doubtful views again, by an operator's command."""

from collections.abc import Collection, Sequence
from time import time

import redis.asyncio as redis
from msgspec.structs import replace

from contracts import streams
from contracts.view_layout import View
from projector.ports import Build
from projector.records import Parked, Record, Update
from projector.redis_store import RedisStore
from projector.retry_schedule import make_due
from runtime.process.start_error import StartError

PAGE_SIZE = 500
"""Views that are loaded and written at once."""
MAX_CONFLICTS = 20
"""Attempts to write a view that a projector changes at the same time."""


class RetryNotPossible(StartError):
    """The aggregates cannot be retried now, or not in this way. Nothing has changed."""


class AggregateUnknown(RetryNotPossible):
    """There is no view of some of the ids.

    Args:
        projection: its name.
        ids: those without a view.
    """

    def __init__(self, projection: str, ids: Sequence[str]) -> None:
        super().__init__(f"neither parked nor a view of {projection}: {', '.join(ids)}")
        self.ids = ids


async def retry_parked(client: redis.Redis, view: View, ids: Collection[str]) -> int:
    """Make aggregates due now, with all of their attempts; projectors replay them.

    A view that is not parked is folded again from its first event, with its history.

    Args:
        client: of Redis.
        view: of the projection.
        ids: of the aggregates; all parked ones if empty.

    Returns:
        The number of aggregates.

    Raises:
        RetryNotPossible: the projection is being built, or a view cannot be folded again.
        AggregateUnknown: there is no view of some of the ids.
    """
    store, build = await _open_built(client, view)
    parked = await store.load_parked()
    others = sorted(set(ids) - parked.keys())
    await _check_views(store, view, others)
    chosen = [view_id for view_id in dict.fromkeys(ids) if view_id in parked] if ids else list(parked)
    pages = [chosen[at : at + PAGE_SIZE] for at in range(0, len(chosen), PAGE_SIZE)]
    retried = sum([await _retry_page(store, page) for page in pages])
    return retried + sum([await _refold(store, view, view_id, build) for view_id in others])


async def retry_listed(client: redis.Redis, view: View, ids: Sequence[str]) -> int:
    """Make those of these aggregates that are parked due now, with all of their attempts.

    Args:
        client: of Redis.
        view: of the projection.
        ids: of the aggregates, PAGE_SIZE at most.

    Returns:
        The number of aggregates.

    Raises:
        RetryNotPossible: the projection is being built.
    """
    store, _ = await _open_built(client, view)
    return await _retry_page(store, ids)


async def _open_built(client: redis.Redis, view: View) -> tuple[RedisStore, Build]:
    """Return the store of a projection, and its build.

    Raises:
        RetryNotPossible: the projection is being built.
    """
    store = RedisStore(client, view)
    if (build := await store.read_build()) is None:
        raise RetryNotPossible(f"{view.projection} is being built; all aggregates are retried by that")
    return store, build


async def _retry_page(store: RedisStore, ids: Sequence[str]) -> int:
    records = await store.load(ids)
    updates = [update for record in records.values() if (update := _make_due(record)) is not None]
    # A view that a projector changes at the same time is retried or unparked by it: it needs no command.
    await store.write(updates)
    return len(updates)


def _make_due(record: Record) -> Update | None:
    """Return the update that makes a parked view due now; None if it is not parked any more."""
    if record.parked is None:
        return None
    return Update(
        record,
        replace(record, parked=make_due(record.parked), revision=record.revision + 1),
        None,
        (),
        None,
        0,
    )


async def _check_views(store: RedisStore, view: View, ids: Sequence[str]) -> None:
    records = await store.load(ids) if ids else {}
    if missing := [record.id for record in records.values() if not record.version and not record.error]:
        raise AggregateUnknown(view.projection, missing)
    if ids and len(view.source_streams) > 1:  # which of them the view's is, only its events tell
        raise RetryNotPossible(f"{view.projection} has several source streams: rebuild it instead")


async def _refold(store: RedisStore, view: View, view_id: str, build: Build) -> bool:
    """Have a view folded again; return False if a projector kept changing it."""
    await store.restore_hash(view_id, 0)
    for _ in range(MAX_CONFLICTS):
        record = (await store.load([view_id]))[view_id]
        parked = record.parked or Parked(
            stream=f"{view.source_streams[0]}.{view_id}",
            version=record.version + 1 if record.version else 0,
            error="an operator has the view folded again",
            since=int(time() * 1000),
            attempts=0,
            next_attempt=0,
            state="retrying",
            stale_since=build.as_of.get(streams.partition(view_id), 0),
        )
        after = replace(record, parked=replace(parked, refold=True), revision=record.revision + 1)
        if not await store.write([Update(record, after, None, (), None, 0)]):
            return True
    return False
