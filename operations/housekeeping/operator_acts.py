"""Removes operators' acts that are older than the retention of the audit."""

from datetime import datetime, timedelta

from operations.housekeeping.database import Database
from operations.housekeeping.kinds import Result
from operations.housekeeping.seals import limit_removal, prepare_removal

KIND = "operator_acts"
TABLES = (KIND, "operator_act_outcomes")
BATCH = 5_000

COUNT = "SELECT count(*) FROM operator_acts WHERE recorded_at < :before"
DELETE = """
WITH removed AS (
  DELETE FROM {table} WHERE number = ANY (
    ARRAY(SELECT number FROM {table} WHERE recorded_at < :before ORDER BY recorded_at LIMIT :limit)
  ) RETURNING 1
)
SELECT count(*) FROM removed
"""


async def remove(database: Database, unexported: bool, retention: timedelta | None, dry_run: bool) -> Result:
    """Remove old acts and outcomes, or count the acts; `unexported` is as in `months.maintain`."""
    if retention is None:
        return Result()
    wanted = await database.compute_kept_since(retention)
    kept_since, note = await limit_removal(database, KIND, wanted, unexported=unexported)
    if kept_since is None:
        return Result(note=note)
    if (count := await database.fetch_value(COUNT, before=kept_since)) == 0 or dry_run:
        return Result(count, kept_since, note)
    for table in TABLES:
        await prepare_removal(database, table, kept_since)
    await database.record_removal(KIND, kept_since)
    removed = await _delete(database, KIND, kept_since)
    await _delete(database, "operator_act_outcomes", kept_since)
    return Result(removed, kept_since, note)


async def _delete(database: Database, table: str, before: datetime) -> int:
    removed, count = 0, BATCH
    while count == BATCH:
        count = await database.fetch_value(DELETE.format(table=table), before=before, limit=BATCH)
        removed += count
    return removed
