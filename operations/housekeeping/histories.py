"""Removes the old entries of histories, ledgers and statements.

How it works. A history has an entry for each version. Its times never decrease, so the entries to remove are
a range of versions at its beginning, which is found by bisection, for a page of histories together. The last
entry before the time stays, since the next one continues from it: a statement begins with its balance.
Entries go in slices, each in one Lua call that also advances the view's `history_from`, where readers and
`diptych verify` see that older ones are archived. A round looks at every history once.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from google.protobuf.message import DecodeError

from operations.housekeeping.database import Database
from operations.housekeeping.kinds import Result
from operations.housekeeping.read_model import Pace, work_on_projections
from projector.projection import Projection
from projector.redis_archive import History, RedisArchive
from runtime.process.settings import Settings

SLICE = 1_000
"""Entries of one call, which takes Redis some 1 ms."""

ReadTime = Callable[[bytes], int]


async def trim(settings: Settings, database: Database, retention: timedelta | None, dry_run: bool) -> Result:
    """Remove old entries, or count them; without a retention no server is connected."""
    if retention is None:
        return Result()
    kept_since = await database.compute_kept_since(retention)
    nanos = int(kept_since.timestamp()) * 10**9

    async def work(projection: Projection[Any], store: RedisArchive) -> int:
        return await trim_projection(projection, store, nanos, dry_run)

    count, note, _ = await work_on_projections(settings, work)
    return Result(count, kept_since, note)


async def trim_projection(
    projection: Projection[Any], store: RedisArchive, before: int, dry_run: bool
) -> int:
    """Remove the entries of before a time, in nanoseconds since 1970, but the last; return their number."""
    if (read_time := projection.read_entry_time) is None:
        return 0
    count, pace = 0, Pace()
    async for histories in store.list_histories():
        for history, first in await find_first_kept(store, histories, before, read_time):
            count += first - history.first if dry_run else await _remove(store, history, first)
            await pace.pause()
        await pace.pause()
    return count


async def find_first_kept(
    store: RedisArchive, histories: Sequence[History], before: int, read_time: ReadTime
) -> Sequence[tuple[History, int]]:
    """Return the histories that have entries to remove, each with the first version that stays.

    That is the last version of before the time.
    """
    histories = await _select_old(store, histories, before, read_time)
    bounds = {history.id: (history.first, history.version) for history in histories}
    by_id = {history.id: history for history in histories}
    # The result is in low..high: the last version whose entry is old, or the first one if none is.
    while searched := [(id_, low, high) for id_, (low, high) in bounds.items() if low < high]:
        middles = [(id_, (low + high + 1) // 2) for id_, low, high in searched]
        entries = await store.read_entries(middles)
        for (id_, low, high), (_, middle), entry in zip(searched, middles, entries, strict=True):
            old = is_old(entry, before, read_time)
            if old is None:  # damaged, or a rebuild has begun, or the view was archived meanwhile
                bounds[id_] = by_id[id_].first, by_id[id_].first
            elif old:
                bounds[id_] = middle, high
            else:
                bounds[id_] = low, middle - 1
    return [(by_id[id_], low) for id_, (low, _) in bounds.items() if low > by_id[id_].first]


async def _select_old(
    store: RedisArchive, histories: Sequence[History], before: int, read_time: ReadTime
) -> Sequence[History]:
    """Return the histories whose second entry is old, so that the first can go; for most, one read tells."""
    longer = [history for history in histories if history.first < history.version]
    entries = await store.read_entries([(history.id, history.first + 1) for history in longer])
    return [
        history for history, entry in zip(longer, entries, strict=True) if is_old(entry, before, read_time)
    ]


def is_old(entry: bytes | None, before: int, read_time: ReadTime) -> bool | None:
    """Return whether an entry is of before a time; None if it is missing, or cannot be read."""
    try:
        return None if entry is None else read_time(entry) < before
    except DecodeError:
        return None


async def _remove(store: RedisArchive, history: History, first: int) -> int:
    """Remove the entries below a version in slices; return their number."""
    position = history.first
    while position < first:
        to = min(position + SLICE, first)
        if not await store.trim(History(history.id, position, history.version), to):
            break  # the next round continues
        position = to
    return position - history.first
