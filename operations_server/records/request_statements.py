"""The SQL that reads the audit and its index. Each statement reads a bounded number of rows."""

_COLUMNS = """
recorded_at, caller, request_id, type, outcome, stream, on_behalf_of, correlation_id, causation_id,
traceparent, duration_us
"""
# In no order: a sort would read all rows of the range before the first.
SCAN_TIMES = f"""
SELECT {_COLUMNS} FROM audit WHERE recorded_at > $1 AND recorded_at <= $2
  AND ($3::uuid IS NULL OR request_id = $3) AND ($4::text IS NULL OR caller = $4)
  AND ($5::text IS NULL OR outcome = $5) AND (NOT $6::bool OR outcome <> 'ACCEPTED')
  AND ($7::text IS NULL OR stream = $7)
  AND ($8::text IS NULL OR coalesce(correlation_id, request_id::text) = $8)
  AND ($9::text IS NULL OR causation_id = $9)
  AND ($10::text IS NULL OR type = $10 OR right(type, length($10) + 1) = '.' || $10)
LIMIT $11
"""  # noqa: S608 - no part of it is data
# `least` ignores nulls: of an empty index it would return a time, and what is older would not be found.
READ_COVERED = """
SELECT least(max(until), clock_timestamp() - $1::interval) FROM request_segments HAVING max(until) IS NOT NULL
"""
READ_TIME = "SELECT clock_timestamp()"
FIND_SEGMENTS_OF_TERMS = """
SELECT s.after, s.until, NOT EXISTS (SELECT FROM unnest($2::bigint[]) AS o(term)
    WHERE NOT EXISTS (SELECT FROM request_terms t WHERE t.term = o.term AND t.segment = s.until))
  AS is_candidate
FROM (
  SELECT segment FROM request_terms
  WHERE term = $1
    AND segment <= coalesce((SELECT min(until) FROM request_segments WHERE until >= $3), 'infinity')
  ORDER BY segment DESC LIMIT $4
) d JOIN request_segments s ON s.until = d.segment ORDER BY s.until DESC
"""
FIND_SEGMENTS = """
SELECT after, until, true AS is_candidate FROM request_segments
WHERE until <= coalesce((SELECT min(until) FROM request_segments WHERE until >= $1), 'infinity')
ORDER BY until DESC LIMIT $2
"""

READ_PROGRESS = "SELECT max(until), clock_timestamp() AS now FROM request_segments"
READ_UNINDEXED = f"""
SELECT {_COLUMNS} FROM audit WHERE recorded_at > $1 AND recorded_at <= $2 LIMIT $3
"""  # noqa: S608 - no part of it is data
ADD_SEGMENT = """
WITH added AS (INSERT INTO request_segments (after, until, requests) VALUES ($1, $2, $3))
INSERT INTO request_terms (term, segment) SELECT term, $2 FROM unnest($4::bigint[]) AS t(term)
ON CONFLICT DO NOTHING
"""
REMOVE_SEGMENTS_FROM = """
WITH removed AS (DELETE FROM request_segments WHERE until > $1)
DELETE FROM request_terms WHERE segment > $1
"""
