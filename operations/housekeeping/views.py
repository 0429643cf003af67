"""Archives the views of aggregates that ended long ago.

How it works. A projection names the indexes that list views which have ended. Those of them whose end is
older than the retention are replaced by tombstones, in batches: each is one Lua call that changes a view only
if it is at the version and revision that were read, so an event that arrives meanwhile wins. An archived view
is in none of these indexes, so a round costs what it archives, not what it archived before. An event that
arrives later makes the projector restore the view (projector/replay.py). A rebuild brings back all, until the
next round.
"""

from datetime import timedelta
from typing import Any

from operations.housekeeping.database import Database
from operations.housekeeping.kinds import Result
from operations.housekeeping.read_model import Pace, work_on_projections
from projector.archival import Archival
from projector.projection import Projection
from projector.records import Record
from projector.redis_archive import RedisArchive
from runtime.process.settings import Settings


async def archive(
    settings: Settings, database: Database, retention: timedelta | None, dry_run: bool
) -> Result:
    """Archive old views, or count them; without a retention no server is connected."""
    if retention is None:
        return Result()
    kept_since = await database.compute_kept_since(retention)
    nanos = int(kept_since.timestamp()) * 10**9

    async def work(projection: Projection[Any], store: RedisArchive) -> int:
        return await archive_projection(projection, store, nanos, dry_run)

    count, note, archived = await work_on_projections(settings, work)
    return Result(count, kept_since, ", ".join(filter(None, (f"{archived:,} archived in all", note))))


async def archive_projection(
    projection: Projection[Any], store: RedisArchive, before: int, dry_run: bool
) -> int:
    """Archive the views that ended before a time, in nanoseconds since 1970; return their number."""
    if (archival := projection.archival) is None:
        return 0
    count, pace = 0, Pace()
    for index in archival.indexes:
        async for view_ids in store.list_until(index, before):
            records = list((await store.load(view_ids)).values())
            old = [record for record in records if _has_ended(archival, record, before)]
            if old:
                count += len(old) if dry_run else await store.archive(old, archival.kept_indexes)
            await pace.pause()
    return count


def _has_ended(archival: Archival[Any], record: Record, before: int) -> bool:
    """Return whether a view may be archived; not while its aggregate is parked."""
    if record.archived or record.parked is not None or record.error or not record.version:
        return False
    end = archival.get_end(record.message)
    return end is not None and end.ToNanoseconds() < before
