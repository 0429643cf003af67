"""The SQL of the event store. A batch of any size is one statement over arrays."""

_STREAM = "id, version, updated_at, state::text AS state, state_version, fingerprint, digest"

READ_STREAMS = f"SELECT {_STREAM} FROM streams WHERE id = ANY($1)"  # noqa: S608 - no part of it is data

# The left join returns at least one row, so that the incarnation and the time are always read. `now()` would
# be the time at which the transaction began, before it waited for its locks. The timeout of locks is longer
# after the lookup: who inserts the same new stream or request waits until the other transaction has ended.
_FOUND = """
  s.incarnation, (SELECT kept_since FROM retention WHERE kind = 'requests') AS kept_since,
  r.caller, r.request_id, r.type, r.hash, r.outcome, r.rejection::text AS rejection,
  r.receipt::text AS receipt, r.recorded_at, clock_timestamp() AS now,
  set_config('lock_timeout', '1500ms', true)
"""
_REQUESTS = """
relay_state s LEFT JOIN (
  unnest($1::text[], $2::uuid[]) AS k(caller, request_id) JOIN requests r USING (caller, request_id)
) ON true
"""
FIND_REQUESTS = f"SELECT {_FOUND} FROM {_REQUESTS}"  # noqa: S608 - no part of it is data

# The rows without an id are those of the requests. The time is read when all streams are locked, since these
# rows need the number of the locks. Their requests are as old as the statement. A transaction that has waited
# for a lock therefore looks for them again: the one that held the lock may have recorded them. A wait is what
# takes longer than 0.2 ms: writers of one command wait for less than 1 ms (ADR 42 has the figures).
_LOCK_AND_FIND = f"""
WITH locked AS MATERIALIZED (
  SELECT {_STREAM} FROM streams WHERE id = ANY($3::text[]) ORDER BY id FOR UPDATE{{}}
)
SELECT id, version, updated_at, state, state_version, fingerprint, digest,
  NULL::uuid AS incarnation, NULL::timestamptz AS kept_since, NULL AS caller, NULL::uuid AS request_id,
  NULL AS type, NULL::bytea AS hash, NULL AS outcome, NULL AS rejection, NULL AS receipt,
  NULL::timestamptz AS recorded_at, NULL::timestamptz AS now, NULL, NULL::bool AS has_waited
FROM locked
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, {_FOUND},
  clock_timestamp() - statement_timestamp() > interval '0.2 ms'
FROM (SELECT count(*) FROM locked) AS l, {_REQUESTS}
"""  # noqa: S608 - no part of it is data
LOCK_AND_FIND = _LOCK_AND_FIND.format("")
LOCK_FREE_AND_FIND = _LOCK_AND_FIND.format(" SKIP LOCKED")

# Both read up to the event that reaches a number of bytes. A value that is stored apart is not read for the
# sum, since its length is in its row.
READ_EVENTS = """
SELECT stream, type, data FROM (
  SELECT e.stream, e.version, e.type, e.data,
    sum(octet_length(e.data)) OVER rows_before - octet_length(e.data) AS bytes_before
  FROM unnest($1::text[], $2::bigint[]) AS k(stream, version) JOIN events e ON e.stream = k.stream
  WHERE e.version > k.version
  WINDOW rows_before AS (ORDER BY e.stream, e.version ROWS UNBOUNDED PRECEDING)
) e WHERE bytes_before < $3 ORDER BY stream, version
"""
READ_CHUNK = """
SELECT type, data FROM (
  SELECT version, type, data,
    sum(octet_length(data)) OVER rows_before - octet_length(data) AS bytes_before
  FROM (
    SELECT version, type, data FROM events WHERE stream = $1 AND version > $2 ORDER BY version LIMIT $3
  ) first
  WINDOW rows_before AS (ORDER BY version ROWS UNBOUNDED PRECEDING)
) e WHERE bytes_before < $4 ORDER BY version
"""

READ_SNAPSHOT = "SELECT version, state::text FROM snapshots WHERE stream = $1 AND fingerprint = $2"

_KEEP = """
ON CONFLICT (stream, fingerprint) DO UPDATE
SET version = excluded.version, state = excluded.state, kept_at = excluded.kept_at
WHERE snapshots.version <= excluded.version
"""

KEEP_SNAPSHOT = f"""
INSERT INTO snapshots (stream, fingerprint, version, state, kept_at) VALUES ($1, $2, $3, $4::json, now())
{_KEEP}
"""  # noqa: S608 - no part of it is data

# The row still holds the snapshot of the other code.
KEEP_REPLACED_SNAPSHOTS = f"""
INSERT INTO snapshots (stream, fingerprint, version, state, kept_at)
SELECT id, fingerprint, state_version, state, now() FROM streams WHERE id = ANY($1) ORDER BY id
{_KEEP}
"""  # noqa: S608 - no part of it is data

# A deployment has two releases, each with its own code. One of their states is in the stream's row as well.
DROP_OLD_SNAPSHOTS = """
DELETE FROM snapshots s WHERE stream = ANY($1) AND (
  SELECT count(*) FROM snapshots l
  WHERE l.stream = s.stream AND (l.kept_at, l.version) > (s.kept_at, s.version)
) >= 2
"""

STREAM_COLUMNS = ("id", "type", "version", "updated_at", "state", "fingerprint", "is_new", "digest")
EVENT_COLUMNS = ("stream", "version", "type", "data", "metadata", "recorded_at", "digest")
REQUEST_COLUMNS = (
    "caller",
    "request_id",
    "type",
    "hash",
    "stream",
    "on_behalf_of",
    "correlation_id",
    "causation_id",
    "traceparent",
    "duration_us",
    "recorded_at",
)

WRITE = """
WITH changed_streams AS (
  SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[], $5::text[], $6::text[],
    $7::bool[], $8::bytea[]) AS t(id, type, version, updated_at, state, fingerprint, is_new, digest)
), created AS (
  INSERT INTO streams (id, type, version, updated_at, state, state_version, fingerprint, digest)
  SELECT id, type, version, updated_at, state::json, version, fingerprint, nullif(digest, '')
  FROM changed_streams WHERE is_new ORDER BY id
), changed AS (
  UPDATE streams s SET version = t.version, updated_at = t.updated_at, state = t.state::json,
    state_version = t.version, fingerprint = t.fingerprint, digest = nullif(t.digest, '')
  FROM changed_streams t WHERE s.id = t.id AND NOT t.is_new
), recorded AS (
  INSERT INTO events (stream, version, type, data, metadata, recorded_at, digest)
  SELECT stream, version, type, data, metadata::json, recorded_at, nullif(digest, '')
  FROM unnest($9::text[], $10::bigint[], $11::text[], $12::bytea[], $13::text[], $14::timestamptz[],
    $15::bytea[])
    WITH ORDINALITY AS t(stream, version, type, data, metadata, recorded_at, digest, decided)
  ORDER BY decided
  RETURNING position
), queued AS (
  INSERT INTO outbox (position) SELECT position FROM recorded
), request AS (
  SELECT * FROM unnest($16::text[], $17::uuid[], $18::text[], $19::bytea[], $20::text[], $21::text[],
    $22::text[], $23::text[], $24::text[], $25::int[], $26::timestamptz[], $27::text[], $28::text[],
    $29::text[], $30::bytea[])
  AS t(caller, request_id, type, hash, stream, on_behalf_of, correlation_id, causation_id, traceparent,
    duration_us, recorded_at, outcome, rejection, receipt, digest)
), audited AS (
  INSERT INTO audit (recorded_at, caller, request_id, type, outcome, stream, on_behalf_of, correlation_id,
    causation_id, traceparent, duration_us, request_digest)
  SELECT recorded_at, caller, request_id, type, outcome, stream, on_behalf_of,
    nullif(correlation_id, request_id::text), causation_id, traceparent, duration_us, digest FROM request
)
INSERT INTO requests (caller, request_id, type, hash, outcome, rejection, receipt, recorded_at)
SELECT caller, request_id, type, hash, outcome, rejection::json, receipt::json, recorded_at FROM request
"""
