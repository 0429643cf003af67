"""Removes answers to repeated requests that are older than their retention.

How it works. The time to which answers are removed is recorded before the first of them goes, and command
servers read it with every batch: a request id from before that time is refused, not executed again. An id
may be ahead of the database's clock by up to MAX_AHEAD, so an answer is kept for that much longer than the
retention. A saga's step that has no outcome yet is repeated under its id, which carries no time, so its
answer is kept until the step has an outcome.
"""

from datetime import timedelta

from command_server.kernel.request_ages import MAX_AHEAD
from operations.housekeeping.database import Database
from operations.housekeeping.kinds import Result

KIND = "requests"
"""The row in `retention` that command servers read."""
BATCH = 5_000
"""Rows of one DELETE, which takes some 30 ms."""

_OLD = """
FROM requests WHERE recorded_at < :before
AND request_id <> ALL (ARRAY(SELECT request_id FROM saga_steps WHERE outcome IS NULL))
"""
COUNT = f"SELECT count(*) {_OLD}"
DELETE = f"""
WITH removed AS (
  DELETE FROM requests WHERE ctid = ANY (ARRAY(SELECT ctid {_OLD} ORDER BY recorded_at LIMIT :limit))
  RETURNING 1
)
SELECT count(*) FROM removed
"""  # noqa: S608 - composed of constants of this module only


async def remove(database: Database, retention: timedelta | None, dry_run: bool) -> Result:
    """Remove old answers, or count them."""
    if retention is None:
        return Result()
    kept_since = await database.compute_kept_since(retention)
    before = kept_since - MAX_AHEAD
    if dry_run:
        return Result(await database.fetch_value(COUNT, before=before), kept_since)
    await database.record_removal(KIND, kept_since)
    removed = count = BATCH
    removed = 0
    while count == BATCH:
        count = await database.fetch_value(DELETE, before=before, limit=BATCH)
        removed += count
    return Result(removed, kept_since)
