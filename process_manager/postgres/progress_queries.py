"""The statements that read how far instances and feeds are, and what the inspection of rows reads."""

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB

OPEN_INSTANCES = """
SELECT saga, id, unreadable, state, other_streams, archived_steps FROM sagas
WHERE (ended IS false OR unreadable)
AND saga = ANY($1::text[]) AND partition = ANY($2::int[]) AND (saga, id) > ($3, $4)
ORDER BY saga, id LIMIT $5
"""

FEED_PROGRESS = """
SELECT (
  SELECT coalesce(sum(hashtextextended(c::text, 0)), 0) FROM saga_checkpoints c WHERE c.saga = ANY($1::text[])
) AS checkpoints_digest, ARRAY(SELECT saga FROM unnest($1::text[]) AS k(saga)
WHERE EXISTS (SELECT FROM saga_parked_streams p WHERE p.saga = k.saga) OR EXISTS (
  SELECT FROM sagas s
  WHERE s.saga = k.saga AND s.blocked_reason <> '' AND (
    s.unreadable OR s.failed_input <> '' OR jsonb_path_exists(s.other_streams, '$.*.failed_input ? (@ != "")')
  )
)) AS waiting
"""

INSTANCE_PROGRESS = text("""
SELECT k.saga, k.id, s.version, coalesce((
  SELECT jsonb_agg(jsonb_build_array(t.step, t.attempt, t.method)) FROM saga_steps t
  WHERE t.saga = k.saga AND t.id = k.id AND t.outcome IS NULL
), '[]') AS pending
FROM unnest(CAST(:sagas AS text[]), CAST(:ids AS text[])) AS k (saga, id) LEFT JOIN sagas s USING (saga, id)
""").columns(pending=JSONB)
