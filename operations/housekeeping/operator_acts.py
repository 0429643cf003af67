"""Removes operators' acts that are older than the retention of the audit."""

from datetime import timedelta

from operations.housekeeping.database import Database
from operations.housekeeping.kinds import Result

KIND = "operator_acts"
BATCH = 5_000

COUNT = "SELECT count(*) FROM operator_acts WHERE recorded_at < :before"
DELETE = """
WITH removed AS (
  DELETE FROM operator_acts WHERE number = ANY (
    ARRAY(SELECT number FROM operator_acts WHERE recorded_at < :before ORDER BY recorded_at LIMIT :limit)
  ) RETURNING 1
)
SELECT count(*) FROM removed
"""


async def remove(database: Database, retention: timedelta | None, dry_run: bool) -> Result:
    """Remove old acts, or count them."""
    if retention is None:
        return Result()
    kept_since = await database.compute_kept_since(retention)
    if dry_run:
        return Result(await database.fetch_value(COUNT, before=kept_since), kept_since)
    await database.record_removal(KIND, kept_since)
    removed, count = 0, BATCH
    while count == BATCH:
        count = await database.fetch_value(DELETE, before=kept_since, limit=BATCH)
        removed += count
    return Result(removed, kept_since)
