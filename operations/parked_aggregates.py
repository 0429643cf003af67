"""Retrying the parked aggregates of a projection by an operator's command."""

from collections.abc import Collection, Sequence

import redis.asyncio as redis
from msgspec.structs import replace

from contracts.view_layout import View
from projector.records import Record, Update
from projector.redis_store import RedisStore
from runtime.process.settings import Settings
from runtime.process.start_error import StartError

PAGE_SIZE = 500
"""Views that are loaded and written at once."""


async def retry(settings: Settings, view: View, ids: Collection[str]) -> int:
    """Make parked aggregates due now, with all of their attempts; projectors replay them.

    Args:
        settings: for Redis.
        view: of the projection.
        ids: of the aggregates; all parked ones if empty.

    Returns:
        The number of aggregates.

    Raises:
        StartError: the projection is being built, or one of the ids is not parked. Nothing has changed.
    """
    async with redis.from_url(settings.redis_url) as client:
        store = RedisStore(client, view)
        if await store.read_build() is None:
            raise StartError(f"{view.projection} is being built; all aggregates are retried by that")
        parked = await store.load_parked()
        if unknown := sorted(set(ids) - parked.keys()):
            raise StartError(f"not parked in {view.projection}: {', '.join(unknown)}")
        chosen = list(dict.fromkeys(ids)) or list(parked)
        pages = [chosen[at : at + PAGE_SIZE] for at in range(0, len(chosen), PAGE_SIZE)]
        return sum([await _retry_page(store, page) for page in pages])


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
    # Due by any clock: projectors compare with Redis's time, not with this machine's.
    parked = replace(record.parked, attempts=0, next_attempt=0, state="retrying")
    return Update(record, replace(record, parked=parked, revision=record.revision + 1), None, (), None, 0)
