"""The SQL of the index of terms. Each statement reads a bounded number of rows."""

# Of a stream's own first events, or of events that may name an instance.
_SELECTED = """
  position > $1 AND position <= $2
  AND (version = 1 AND split_part(stream, '.', 1) || '.' || split_part(stream, '.', 2) = ANY($3)
    OR split_part(stream, '.', 1) || '.' || split_part(stream, '.', 2) = ANY($4))
"""
READ_FIRST_EVENTS = f"""
SELECT position, stream, version, type, data FROM events WHERE {_SELECTED} ORDER BY position
"""  # noqa: S608 - composed of constants
# A string stands in the bytes of a message as it is.
FIND_EVENTS = f"""
SELECT position, stream, version, type, data FROM events WHERE {_SELECTED} AND position($5::bytea IN data) > 0
ORDER BY position DESC LIMIT $6
"""  # noqa: S608 - composed of constants
READ_PROGRESS = "SELECT coalesce(max(until), 0) FROM saga_term_segments"
FIND_SEGMENTS = """
SELECT s.after, s.until FROM (
  SELECT segment FROM saga_terms
  WHERE term = $1 AND segment <= (SELECT min(until) FROM saga_term_segments WHERE until >= $2)
  ORDER BY segment DESC LIMIT $3
) t JOIN saga_term_segments s ON s.until = t.segment ORDER BY s.until DESC
"""
ADD_SEGMENT = """
WITH added AS (INSERT INTO saga_term_segments (after, until) VALUES ($1, $2))
INSERT INTO saga_terms (term, segment)
SELECT term, $2 FROM unnest($3::bigint[]) AS t(term) ON CONFLICT DO NOTHING
"""
