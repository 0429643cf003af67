"""The statements that read due steps, due timers and open instances, and how far instances and feeds are.

How it works:

- A queue is the pending steps of one saga, target and partition, in the order of the index `saga_steps_due`.
  `queues` finds the pairs of saga and target that have pending steps by skipping from one to the next in that
  index, so its cost depends on their number alone.
- Each queue yields no more rows than its target may send, so a target without places costs nothing, however
  many steps wait for it. The longest due of all its queues are read first. Steps that the process has in
  memory are passed over.
- Timers are read from the queues of their sagas and partitions likewise: those that another manager has to
  fire are not read again and again. Timers that are stopped are not in the index. Instances whose timer is
  being fired are passed over.
"""

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB

DUE_STEPS = """
WITH RECURSIVE queues AS (
  (SELECT saga, split_part(method, '/', 2) AS target FROM saga_steps WHERE outcome IS NULL
   ORDER BY saga, split_part(method, '/', 2) LIMIT 1)
  UNION ALL
  SELECT next.saga, next.target FROM queues q CROSS JOIN LATERAL (
    SELECT s.saga, split_part(s.method, '/', 2) AS target FROM saga_steps s
    WHERE s.outcome IS NULL AND (s.saga, split_part(s.method, '/', 2)) > (q.saga, q.target)
    ORDER BY s.saga, split_part(s.method, '/', 2) LIMIT 1
  ) next
), places AS (
  SELECT q.saga, q.target, coalesce(l.places, $5::int) AS places
  FROM queues q
  LEFT JOIN unnest($3::text[], $4::int[]) AS l (target, places) USING (target)
  WHERE q.saga = ANY($1::text[])
), due AS (
  SELECT d.*, p.places, row_number() OVER (PARTITION BY p.target ORDER BY d.due_at) AS rank
  FROM places p
  CROSS JOIN unnest($2::int[]) AS q (partition)
  CROSS JOIN LATERAL (
    SELECT s.saga, s.id, s.step, s.attempt, s.due_at FROM saga_steps s
    WHERE s.outcome IS NULL AND s.saga = p.saga AND split_part(s.method, '/', 2) = p.target
    AND s.partition = q.partition AND s.due_at <= now()
    AND s.saga || '/' || s.id || '/' || s.step || '/' || s.attempt <> ALL ($6::text[])
    ORDER BY s.due_at LIMIT p.places
  ) d
  WHERE p.places > 0
)
SELECT s.saga, s.id, s.step, s.attempt, s.method, s.request, s.tries, s.denied,
       coalesce(g.correlation_id, '') AS correlation_id, g.traceparent, g.began_at
FROM due d JOIN saga_steps s USING (saga, id, step, attempt) LEFT JOIN sagas g USING (saga, id)
WHERE d.rank <= d.places
ORDER BY d.due_at
"""

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

DUE_TIMERS = text("""
SELECT d.saga, d.id, d.name, d.due_at
FROM unnest(CAST(:sagas AS text[])) AS g (saga)
CROSS JOIN unnest(CAST(:partitions AS int[])) AS q (partition)
CROSS JOIN LATERAL (
  SELECT t.saga, t.id, t.name, t.due_at, coalesce(t.postponed_to, t.due_at) AS at FROM saga_timers t
  WHERE t.saga = g.saga AND t.partition = q.partition AND t.stopped_at IS NULL
  AND coalesce(t.postponed_to, t.due_at) <= now()
  AND t.saga || '/' || t.id <> ALL (CAST(:known AS text[]))
  ORDER BY coalesce(t.postponed_to, t.due_at) LIMIT :limit
) d
ORDER BY d.at LIMIT :limit
""")

PROGRESS = text("""
SELECT k.saga, k.id, s.version, coalesce((
  SELECT jsonb_agg(jsonb_build_array(t.step, t.attempt, t.method)) FROM saga_steps t
  WHERE t.saga = k.saga AND t.id = k.id AND t.outcome IS NULL
), '[]') AS pending
FROM unnest(CAST(:sagas AS text[]), CAST(:ids AS text[])) AS k (saga, id) LEFT JOIN sagas s USING (saga, id)
""").columns(pending=JSONB)

POSTPONE_TIMERS = text("""
UPDATE saga_timers t SET postponed_to = now() + make_interval(secs => k.pause)
FROM (
  SELECT saga, id, name, due_at, pause
  FROM unnest(CAST(:sagas AS text[]), CAST(:ids AS text[]), CAST(:names AS text[]),
    CAST(:times AS timestamptz[]), CAST(:pauses AS float[])) AS n (saga, id, name, due_at, pause)
  JOIN saga_timers l USING (saga, id, name, due_at) FOR UPDATE OF l SKIP LOCKED
) k
WHERE t.saga = k.saga AND t.id = k.id AND t.name = k.name AND t.due_at = k.due_at
""")
