"""The statements on the rows of deadlines.

How it works:

- Each statement is a transaction of its own. It locks the rows that its changes depend on, and changes
  nothing if one is not as expected: a checkpoint that another manager has advanced, a row that is gone.
- Rows that another transaction has locked are skipped, as if they were gone: all deadlines and the polls of
  timers share the connection, so one locked row would delay them all.
- Rows are found by their keys, even if the planner knows little of a young table: hence the lateral queries
  that lock or have an OFFSET.
"""

WRITE = """
WITH checkpoints AS MATERIALIZED (
  SELECT saga, stream_type, partition, n.new_epoch, n.new_sequence
  FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::bigint[], $6::text[], $7::bigint[])
    AS n (saga, stream_type, partition, epoch, sequence, new_epoch, new_sequence)
  JOIN saga_checkpoints c USING (saga, stream_type, partition, epoch, sequence)
  ORDER BY saga, stream_type, partition FOR UPDATE OF c SKIP LOCKED
), ended AS MATERIALIZED (
  SELECT d.place, n.required
  FROM unnest($8::text[], $9::text[], $10::bool[]) AS n (saga, id, required)
  CROSS JOIN LATERAL (
    SELECT ctid AS place FROM saga_deadlines WHERE saga = n.saga AND id = n.id FOR UPDATE SKIP LOCKED
  ) d
), held AS MATERIALIZED (
  SELECT (SELECT count(*) FROM checkpoints) = cardinality($1::text[])
    AND (SELECT count(*) FROM ended WHERE required)
      = (SELECT count(*) FROM unnest($10::bool[]) AS n (required) WHERE required)
    AND (SELECT count(*) FROM ended) = (
      SELECT count(*) FROM unnest($8::text[], $9::text[]) AS n (saga, id)
      CROSS JOIN LATERAL (SELECT FROM saga_deadlines WHERE saga = n.saga AND id = n.id OFFSET 0) d
    )
    AND NOT EXISTS (
      SELECT FROM unnest($11::text[], $12::text[]) AS n (saga, id)
      WHERE EXISTS (SELECT FROM saga_deadlines d WHERE d.saga = n.saga AND d.id = n.id OFFSET 0)
    )
    AND NOT EXISTS (
      SELECT FROM unnest($13::text[], $14::text[], $15::text[]) AS n (saga, id, stream)
      WHERE EXISTS (SELECT FROM sagas s WHERE s.saga = n.saga AND s.id = n.id OFFSET 0)
      OR EXISTS (SELECT FROM saga_parked_streams p WHERE p.saga = n.saga AND p.stream = n.stream OFFSET 0)
    ) AS held
), advanced AS (
  UPDATE saga_checkpoints c SET epoch = n.new_epoch, sequence = n.new_sequence FROM checkpoints n
  WHERE c.saga = n.saga AND c.stream_type = n.stream_type AND c.partition = n.partition
  AND (SELECT held FROM held)
), removed AS (
  DELETE FROM saga_deadlines WHERE ctid = ANY (ARRAY(SELECT place FROM ended WHERE (SELECT held FROM held)))
), added AS (
  INSERT INTO saga_deadlines (saga, id, partition, due_at, set_at, correlation_id, traceparent)
  SELECT n.saga, n.id, n.partition, n.due_at, now(), n.correlation_id, n.traceparent
  FROM unnest($16::text[], $17::text[], $18::int[], $19::timestamptz[], $20::text[], $21::text[])
    AS n (saga, id, partition, due_at, correlation_id, traceparent)
  WHERE (SELECT held FROM held) ON CONFLICT (saga, id) DO NOTHING
)
SELECT held FROM held
"""
"""Returns whether the changes and the checkpoints were written; nothing is, unless all can be."""

READ = """
SELECT n.saga, n.id, d.due_at, EXISTS (
  SELECT FROM sagas s WHERE s.saga = n.saga AND s.id = n.id OFFSET 0
) OR EXISTS (
  SELECT FROM saga_parked_streams p WHERE p.saga = n.saga AND p.stream = n.stream OFFSET 0
) AS has_instance
FROM unnest($1::text[], $2::text[], $3::text[]) AS n (saga, id, stream)
LEFT JOIN LATERAL (
  SELECT due_at FROM saga_deadlines WHERE saga = n.saga AND id = n.id OFFSET 0
) d ON true
"""

BEGIN_INSTANCES = """
WITH due AS MATERIALIZED (
  SELECT n.saga, n.id, n.due_at, n.timer, n.state, n.status, n.waiting_for, n.first_event, d.*
  FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::text[]) AS n (saga, id, due_at, timer, state, status, waiting_for, first_event)
  CROSS JOIN LATERAL (
    SELECT ctid AS place, partition, set_at, correlation_id, traceparent FROM saga_deadlines
    WHERE saga = n.saga AND id = n.id AND due_at = n.due_at FOR UPDATE SKIP LOCKED
  ) d
), removed AS (
  DELETE FROM saga_deadlines WHERE ctid = ANY (ARRAY(SELECT place FROM due))
), begun AS (
  INSERT INTO sagas (saga, id, partition, version, other_streams, state, status, ended, waiting_for,
    blocked_reason, failed_input, correlation_id, traceparent, began_at, status_since)
  SELECT saga, id, partition, 1, '{}', state::jsonb, status, false, waiting_for,
    '', '', correlation_id, traceparent, set_at, set_at
  FROM due ON CONFLICT (saga, id) DO NOTHING RETURNING saga, id
), timers AS (
  INSERT INTO saga_timers (saga, id, name, partition, due_at, correlation_id, causation_id, traceparent)
  SELECT saga, id, timer, partition, due_at, correlation_id, first_event, traceparent
  FROM due JOIN begun USING (saga, id)
  ON CONFLICT (saga, id, name) DO NOTHING
)
SELECT saga, id FROM begun
"""

REMOVE_REPLACED = """
DELETE FROM saga_deadlines WHERE ctid = ANY (ARRAY(
  SELECT d.ctid FROM unnest($1::text[], $2::text[]) AS n (saga, id)
  JOIN saga_deadlines d USING (saga, id)
  WHERE EXISTS (SELECT FROM sagas s WHERE s.saga = n.saga AND s.id = n.id OFFSET 0)
  FOR UPDATE OF d SKIP LOCKED
))
"""
"""Removes deadlines that cannot begin an instance, and need not: their streams have begun it."""

READ_DUE = """
SELECT d.saga, d.id, d.due_at
FROM unnest($1::text[]) AS g (saga) CROSS JOIN unnest($2::int[]) AS q (partition)
CROSS JOIN LATERAL (
  SELECT t.saga, t.id, t.due_at, coalesce(t.postponed_to, t.due_at) AS at FROM saga_deadlines t
  WHERE t.saga = g.saga AND t.partition = q.partition AND coalesce(t.postponed_to, t.due_at) <= now()
  AND t.saga || '/' || t.id <> ALL ($4::text[])
  ORDER BY coalesce(t.postponed_to, t.due_at) LIMIT $3
) d
ORDER BY d.at LIMIT $3
"""

READ_NEXT = """
SELECT clock_timestamp() AS now, (
  SELECT min(n.at) FROM unnest($1::text[]) AS g (saga) CROSS JOIN unnest($2::int[]) AS q (partition)
  CROSS JOIN LATERAL (
    (SELECT coalesce(postponed_to, due_at) AS at FROM saga_timers
     WHERE saga = g.saga AND partition = q.partition AND stopped_at IS NULL
     AND saga || '/' || id <> ALL ($3::text[])
     ORDER BY coalesce(postponed_to, due_at) LIMIT 1)
    UNION ALL
    (SELECT coalesce(postponed_to, due_at) FROM saga_deadlines
     WHERE saga = g.saga AND partition = q.partition AND saga || '/' || id <> ALL ($3::text[])
     ORDER BY coalesce(postponed_to, due_at) LIMIT 1)
  ) n
) AS next_at
"""

POSTPONE = """
UPDATE saga_deadlines d SET postponed_to = now() + make_interval(secs => n.pause)
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::float[]) AS n (saga, id, due_at, pause)
CROSS JOIN LATERAL (
  SELECT ctid AS place FROM saga_deadlines
  WHERE saga = n.saga AND id = n.id AND due_at = n.due_at FOR UPDATE SKIP LOCKED
) l
WHERE d.ctid = l.place RETURNING d.saga, d.id, d.due_at
"""
