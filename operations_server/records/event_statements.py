"""The SQL that reads events and their index. Each statement reads a bounded number of rows."""

_COLUMNS = """
position, stream, version, type, metadata::text AS metadata, recorded_at, octet_length(data) AS bytes
"""
# A text may stand in the metadata as JSON anywhere; what this selects is checked again. `->>` would fail for
# metadata with an unpaired surrogate.
_SELECTED = """
  AND ($3::text IS NULL OR type = $3 OR right(type, length($3) + 1) = '.' || $3)
  AND ($4::text IS NULL OR strpos(metadata::text, $4) > 0)
  AND ($5::text IS NULL OR strpos(metadata::text, $5) > 0)
  AND ($6::timestamptz IS NULL OR recorded_at >= $6) AND ($7::timestamptz IS NULL OR recorded_at < $7)
"""
SCAN_POSITIONS = f"""
SELECT {_COLUMNS} FROM events WHERE position > $1 AND position <= $2 {_SELECTED} ORDER BY position LIMIT $8
"""  # noqa: S608 - no part of it is data
SCAN_VERSIONS = f"""
SELECT {_COLUMNS} FROM events WHERE stream = $9 AND version > $1 AND version <= $2 {_SELECTED}
  AND position > $10 AND position <= $11 ORDER BY version LIMIT $8
"""  # noqa: S608 - no part of it is data
READ_DATA = "SELECT position, data FROM events WHERE position = ANY($1)"
FIND_LAST_VERSION = """
SELECT version FROM events WHERE stream = $1 AND position <= $2 ORDER BY version DESC LIMIT 1
"""

READ_PROGRESS = "SELECT coalesce(max(until), 0) FROM event_segments"
_HAS_TIMES = """
s.max_time >= coalesce({}::timestamptz, '-infinity') AND s.min_time < coalesce({}::timestamptz, 'infinity')
"""
# The segments of one term, with whether all other terms, of which there may be none, are in them, too.
FIND_SEGMENTS_OF_TERMS = f"""
SELECT s.after, s.until, ({_HAS_TIMES.format("$4", "$5")} AND NOT EXISTS (
  SELECT FROM unnest($2::bigint[]) AS o(term)
  WHERE NOT EXISTS (SELECT FROM event_terms t WHERE t.term = o.term AND t.segment = s.until)
)) AS is_candidate
FROM (
  SELECT segment FROM event_terms WHERE term = $1 AND segment > $3 ORDER BY segment LIMIT $6
) d JOIN event_segments s ON s.until = d.segment ORDER BY s.until
"""  # noqa: S608 - no part of it is data
FIND_SEGMENTS_OF_TIMES = f"""
SELECT s.after, s.until, ({_HAS_TIMES.format("$2", "$3")}) AS is_candidate
FROM (SELECT * FROM event_segments WHERE until > $1 ORDER BY until LIMIT $4) s ORDER BY s.until
"""  # noqa: S608 - no part of it is data

READ_UNINDEXED = """
SELECT position, type, metadata::text AS metadata, recorded_at FROM events
WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3
"""
ADD_SEGMENT = """
WITH added AS (
  INSERT INTO event_segments (after, until, min_time, max_time, events) VALUES ($1, $2, $3, $4, $5)
)
INSERT INTO event_terms (term, segment) SELECT term, $2 FROM unnest($6::bigint[]) AS t(term)
ON CONFLICT DO NOTHING
"""
