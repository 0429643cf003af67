"""Removes the index of requests whose part of the audit is no longer kept."""

from datetime import UTC, datetime, timedelta

from operations.housekeeping.database import Database
from operations.housekeeping.kinds import Result
from operations.housekeeping.seals import limit_removal

BATCH = 20
"""Segments of some 2,000 requests that are removed at once, with their terms."""

CUTOFF = "SELECT now() - CAST(:retention AS interval)"
COUNT = "SELECT count(*) FROM request_segments WHERE until < :before"
# A segment before the cutoff has no request that the audit still has; the next one may have some.
DELETE = """
WITH oldest AS (
  SELECT until FROM request_segments WHERE until < :before ORDER BY until LIMIT :limit
), removed AS (
  DELETE FROM request_segments WHERE until IN (SELECT until FROM oldest) RETURNING until
), removed_terms AS (
  DELETE FROM request_terms WHERE segment <= (SELECT max(until) FROM oldest)
)
SELECT count(*) FROM removed
"""


async def remove(database: Database, unexported: bool, retention: timedelta | None, dry_run: bool) -> Result:
    """Remove segments of months that the audit no longer keeps, or count them; as `months.maintain`."""
    if retention is None:
        return Result()
    cutoff: datetime = await database.fetch_value(CUTOFF, retention=retention)
    wanted = datetime(cutoff.year, cutoff.month, 1, tzinfo=UTC)
    limit, _ = await limit_removal(database, "audit", wanted, unexported=unexported)
    if limit is None:
        return Result()
    kept_since = datetime(limit.year, limit.month, 1, tzinfo=UTC)
    if dry_run:
        return Result(await database.fetch_value(COUNT, before=kept_since), kept_since)
    removed, count = 0, BATCH
    while count == BATCH:
        count = await database.fetch_value(DELETE, before=kept_since, limit=BATCH)
        removed += count
    return Result(removed, kept_since)
