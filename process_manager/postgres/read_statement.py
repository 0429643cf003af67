"""The statements that read the rows that a group of inputs needs.

How it works. Nothing is locked: `write_statement.py` compares what was read here. The rows of instances come
with their steps and their own streams in one snapshot. Each row is found by its key, also if the
planner takes a table that has grown for a small one: hence the subqueries with OFFSET.
"""

READ_INSTANCES = """
SELECT c.now, k.saga, k.id, s.*, t.*, p.*
FROM (SELECT clock_timestamp() AS now OFFSET 0) c
LEFT JOIN unnest($1::text[], $2::text[], $3::text[]) AS k (saga, id, own_stream) ON true
LEFT JOIN LATERAL (
  SELECT xmin AS revision, version, other_streams, state, status, status_since, failed_input, unreadable,
    began_at, correlation_id, traceparent, latest_cause, archived_steps,
    (SELECT count(*) FROM saga_operator_actions a WHERE a.saga = k.saga AND a.id = k.id) AS operator_actions
  FROM sagas WHERE saga = k.saga AND id = k.id OFFSET 0
) s ON true
LEFT JOIN LATERAL (
  SELECT array_agg(step) AS steps, array_agg(attempt) AS attempts, array_agg(outcome IS NULL) AS pending
  FROM saga_steps WHERE saga = k.saga AND id = k.id OFFSET 0
) t ON true
LEFT JOIN LATERAL (
  SELECT xmin AS parked_revision, stream AS parked_stream, version AS parked_version, latest, error,
    stream_type, partition
  FROM saga_parked_streams WHERE saga = k.saga AND stream = k.own_stream OFFSET 0
) p ON true
"""

READ_PARKED = """
SELECT k.saga, p.*
FROM unnest($1::text[], $2::text[]) AS k (saga, stream)
CROSS JOIN LATERAL (
  SELECT xmin AS parked_revision, stream AS parked_stream, version AS parked_version, latest, error,
    stream_type, partition
  FROM saga_parked_streams WHERE saga = k.saga AND stream = k.stream OFFSET 0
) p
"""

READ_TIMERS = """
SELECT k.saga, k.id, k.name, k.due_at, t.*
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) AS k (saga, id, name, due_at)
CROSS JOIN LATERAL (
  SELECT coalesce(correlation_id, '') AS correlation_id, causation_id, traceparent FROM saga_timers
  WHERE saga = k.saga AND id = k.id AND name = k.name AND due_at = k.due_at AND stopped_at IS NULL OFFSET 0
) t
"""

READ_CHECKPOINTS = """
SELECT k.saga, k.stream_type, k.partition, c.epoch, c.sequence
FROM unnest($1::text[], $2::text[], $3::int[]) AS k (saga, stream_type, partition)
LEFT JOIN LATERAL (
  SELECT epoch, sequence FROM saga_checkpoints
  WHERE saga = k.saga AND stream_type = k.stream_type AND partition = k.partition OFFSET 0
) c ON true
"""
