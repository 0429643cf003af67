"""Archives the steps of sagas that ended long ago.

How it works. A saga's row stays, with its state and its positions: an event that arrives later, a return for
instance, finds the saga where it was, and the events of a rebuilt stream are passed over. Its steps go; the
row keeps their names and attempts, because a step must not be taken twice. A saga with a step without an
outcome is left alone, and so is a blocked one.
"""

from datetime import datetime, timedelta

from operations.housekeeping.database import Database
from operations.housekeeping.kinds import Result

KIND = "sagas"
BATCH = 500
"""Sagas of one statement, with some ten steps each."""

_OLD = """
sagas g WHERE g.ended AND g.status_since < :before AND g.blocked_reason = ''
AND EXISTS (SELECT FROM saga_steps s WHERE s.saga = g.saga AND s.id = g.id)
AND NOT EXISTS (SELECT FROM saga_steps s WHERE s.saga = g.saga AND s.id = g.id AND s.outcome IS NULL)
"""
COUNT = f"SELECT count(*) FROM {_OLD}"  # noqa: S608 - composed of constants of this module only
ARCHIVE = f"""
WITH chosen AS (
  SELECT g.saga, g.id, g.status_since FROM {_OLD}
  AND (g.status_since, g.saga, g.id) > (:since, :saga, :id)
  ORDER BY g.status_since, g.saga, g.id LIMIT :limit FOR UPDATE SKIP LOCKED
), removed AS (
  DELETE FROM saga_steps s USING chosen c WHERE s.saga = c.saga AND s.id = c.id
  RETURNING s.saga, s.id, s.step, s.attempt
), last_attempts AS (
  SELECT saga, id, step, max(attempt) AS attempt FROM removed GROUP BY saga, id, step
), archived AS (
  UPDATE sagas g SET archived_steps = coalesce(g.archived_steps, '{{}}') || a.steps
  FROM (SELECT saga, id, jsonb_object_agg(step, attempt) AS steps FROM last_attempts GROUP BY saga, id) a
  WHERE g.saga = a.saga AND g.id = a.id
)
SELECT saga, id, status_since FROM chosen ORDER BY status_since, saga, id
"""  # noqa: S608 - composed of constants of this module only


async def archive(database: Database, retention: timedelta | None, dry_run: bool) -> Result:
    """Archive the steps of old sagas, or count the sagas."""
    if retention is None:
        return Result()
    kept_since = await database.compute_kept_since(retention)
    if dry_run:
        return Result(await database.fetch_value(COUNT, before=kept_since), kept_since)
    await database.record_removal(KIND, kept_since)
    archived, after = 0, ("", "", datetime(1, 1, 2, tzinfo=kept_since.tzinfo))
    while True:
        saga, id_, since = after
        rows = await database.fetch(ARCHIVE, before=kept_since, since=since, saga=saga, id=id_, limit=BATCH)
        archived += len(rows)
        if len(rows) < BATCH:
            return Result(archived, kept_since)
        after = tuple(rows[-1])
