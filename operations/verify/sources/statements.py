"""The SQL of verify; every statement only reads."""

SESSION = {
    "role": "diptych_reader",
    "default_transaction_read_only": "on",
    "jit": "off",
    # Recently filled tables have no statistics, so the planner would join them whole: force index lookups.
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}

STREAM_NAMES = """
SELECT name, coalesce((SELECT max(version) FROM events WHERE stream = name), 0) AS version FROM (
    (SELECT id AS name FROM streams WHERE id > :after ORDER BY id LIMIT :limit)
    UNION
    (SELECT stream FROM events WHERE stream > :after GROUP BY stream ORDER BY stream LIMIT :limit)
    ORDER BY name LIMIT :limit
) n ORDER BY name
"""

STREAM_ROWS = """
SELECT id, type, version, CAST(state AS text), state_version, fingerprint
FROM streams WHERE id = ANY(CAST(:names AS text[]))
"""

KEPT_SNAPSHOTS = """
SELECT stream, fingerprint, version, CAST(state AS text)
FROM snapshots WHERE stream = ANY(CAST(:names AS text[]))
"""

_EVENT = "stream, version, type, data, CAST(metadata AS text), recorded_at, position"

EVENTS = f"SELECT {_EVENT} FROM events WHERE stream = ANY(CAST(:names AS text[])) ORDER BY stream, version"  # noqa: S608

EVENTS_AT = f"SELECT {_EVENT} FROM events WHERE position = ANY(CAST(:positions AS bigint[]))"  # noqa: S608

OUTBOX_ROWS = (
    "SELECT position, epoch, sequence FROM outbox WHERE position = ANY(CAST(:positions AS bigint[]))"
    " ORDER BY position"
)

EXISTING_STREAMS = """
SELECT name FROM unnest(CAST(:names AS text[])) name WHERE EXISTS (SELECT FROM events WHERE stream = name)
"""

LAST_POSITION = "SELECT max(position) FROM events"

NEWEST_FINGERPRINTS = (
    "SELECT DISTINCT ON (type) type, fingerprint FROM streams ORDER BY type, updated_at DESC"
)

OUTBOX_COUNTS = """
SELECT count(*), count(*) FILTER (WHERE sequence IS NULL) FROM outbox
"""

OUTBOX_ROWS_WITHOUT_EVENT = """
SELECT position FROM outbox o WHERE NOT EXISTS (SELECT FROM events e WHERE e.position = o.position)
"""

RECEIPTS = """
SELECT caller, request_id, (
    SELECT min(t.key || '@' || t.value) FROM json_each_text(receipt) t
    WHERE t.value <> '0'
    AND NOT EXISTS (SELECT FROM events e WHERE e.stream = t.key AND e.version = CAST(t.value AS bigint))
) AS missing
FROM requests WHERE outcome = 'ACCEPTED' AND (caller, request_id) > (:caller, CAST(:request_id AS uuid))
ORDER BY caller, request_id LIMIT :limit
"""

INCARNATION = "SELECT CAST(incarnation AS text), pg_is_in_recovery() FROM relay_state"
"""The incarnation of the database, and whether this server is a standby."""
