"""The statements on due steps and due timers.

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
       coalesce(s.correlation_id, g.correlation_id, '') AS correlation_id,
       CASE WHEN s.causation_id IS NULL THEN g.traceparent ELSE s.traceparent END AS traceparent,
       CASE WHEN s.tries = 0 THEN g.began_at ELSE s.due_at END AS waiting_since,
       coalesce(s.causation_id, left(s.saga || '/' || s.id, 128)) AS causation_id,
       g.traceparent AS began_traceparent
FROM due d JOIN saga_steps s USING (saga, id, step, attempt) LEFT JOIN sagas g USING (saga, id)
WHERE d.rank <= d.places
ORDER BY d.due_at
"""

DUE_TIMERS = """
SELECT d.saga, d.id, d.name, d.due_at
FROM unnest($1::text[]) AS g (saga)
CROSS JOIN unnest($2::int[]) AS q (partition)
CROSS JOIN LATERAL (
  SELECT t.saga, t.id, t.name, t.due_at, coalesce(t.postponed_to, t.due_at) AS at FROM saga_timers t
  WHERE t.saga = g.saga AND t.partition = q.partition AND t.stopped_at IS NULL
  AND coalesce(t.postponed_to, t.due_at) <= now()
  AND t.saga || '/' || t.id <> ALL ($4::text[])
  ORDER BY coalesce(t.postponed_to, t.due_at) LIMIT $3
) d
ORDER BY d.at LIMIT $3
"""

POSTPONE_TIMERS = """
UPDATE saga_timers t SET postponed_to = now() + make_interval(secs => k.pause)
FROM (
  SELECT saga, id, name, due_at, pause
  FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::float[])
    AS n (saga, id, name, due_at, pause)
  JOIN saga_timers l USING (saga, id, name, due_at) FOR UPDATE OF l SKIP LOCKED
) k
WHERE t.saga = k.saga AND t.id = k.id AND t.name = k.name AND t.due_at = k.due_at
RETURNING t.saga, t.id, t.name, t.due_at
"""
