"""The SQL of the event index."""

from command_server.kernel.ports import MAX_READ_BYTES

FIND_ORIGIN = """
SELECT position, recorded_at, coalesce((SELECT position FROM event_index_progress WHERE index = $2), 0)
FROM events WHERE stream = $1 AND version = 1
"""
FIND_NEWEST = "SELECT coalesce(max(position), 0) FROM events"
READ_PROGRESS = "SELECT position FROM event_index_progress WHERE index = $1"

# A transaction takes this lock before its first position, and gives it up after its commit is visible.
FIND_WRITERS = """
SELECT DISTINCT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND relation = 'events'::regclass AND mode = 'RowExclusiveLock' AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

# The length of a value that is stored apart is in its row, so the sum reads no data.
READ_POSITIONS = f"""
SELECT position, stream, version, type, data FROM (
  SELECT position, stream, version, type, data,
    sum(octet_length(data)) OVER rows_before - octet_length(data) AS bytes_before
  FROM (
    SELECT position, stream, version, type, data FROM events
    WHERE position > $1 AND position <= $2 AND type = ANY($3) ORDER BY position LIMIT $4
  ) first
  WINDOW rows_before AS (ORDER BY position ROWS UNBOUNDED PRECEDING)
) e WHERE bytes_before < {MAX_READ_BYTES} ORDER BY position
"""  # noqa: S608 - no part of it is data
READ_HISTORIES = """
SELECT e.stream, e.type, e.data FROM unnest($1::text[], $2::bigint[]) AS k(stream, version)
JOIN events e ON e.stream = k.stream AND e.version <= k.version ORDER BY e.stream, e.version
"""

ADD_ENTRIES = """
WITH advanced AS (
  UPDATE event_index_progress SET position = $3 WHERE index = $1 AND position = $2 RETURNING 1
), added AS (
  INSERT INTO event_index (index, key, position)
  SELECT $1, key, position FROM unnest($4::text[], $5::bigint[]) AS t(key, position)
  WHERE EXISTS (SELECT FROM advanced) ON CONFLICT DO NOTHING
)
SELECT EXISTS (SELECT FROM advanced)
"""
BEGIN_INDEX = "INSERT INTO event_index_progress (index, position) VALUES ($1, 0) ON CONFLICT DO NOTHING"

READ_ENTRIES = """
SELECT k.key, split_part(e.stream, '.', 3), e.recorded_at
FROM unnest($2::text[], $3::int[]) AS k(key, most)
CROSS JOIN LATERAL (
  SELECT position FROM event_index i WHERE i.index = $1 AND i.key = k.key AND i.position < $4
  ORDER BY position DESC LIMIT k.most
) i JOIN events e ON e.position = i.position
ORDER BY k.key, e.position DESC
"""
