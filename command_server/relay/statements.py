"""The relay's SQL. Every statement commits by itself.

BEGIN_EPOCH, MARK, MARK_AND_READ and SYNC_MARKS change nothing unless the relay's state is the expected one
($1 to $3).
"""
# ruff: noqa: S608 - composed of constants of this module only

_EVENT = "e.stream, e.version, e.type, e.data, e.recorded_at, e.position, CAST(e.metadata AS text)"

# Of the events of one read. A value that is stored apart is not read for it, since its length is in its row.
_BYTES_BEFORE = """
sum(octet_length(data)) OVER (ORDER BY position) - octet_length(data) AS bytes_before
"""

STATE = "SELECT incarnation, epoch, sequence FROM relay_state WHERE id = 1"

_UNCHANGED = "id = 1 AND incarnation = $1 AND epoch IS NOT DISTINCT FROM $2 AND sequence = $3"

BEGIN_EPOCH = f"UPDATE relay_state SET epoch = $4, sequence = 0 WHERE {_UNCHANGED} RETURNING id"

# A commit that waits for the disk also makes all earlier commits durable.
SYNC_MARKS = f"UPDATE relay_state SET sequence = $3 WHERE {_UNCHANGED} RETURNING id"

_WITHOUT_SYNC = "set_config('synchronous_commit', 'off', true) IS NOT NULL"

_MARK = """
WITH state AS (
    UPDATE relay_state SET sequence = $4 WHERE {condition} RETURNING epoch
), marked AS (
    UPDATE outbox SET epoch = state.epoch, sequence = m.sequence, published_at = now()
    FROM state, unnest(CAST($5 AS bigint[]), CAST($6 AS bigint[])) AS m (position, sequence)
    WHERE outbox.position = m.position
)
"""

MARK = f"{_MARK.format(condition=_UNCHANGED)} SELECT epoch FROM state"

# With an array, PostgreSQL looks each position up. With a join it would read all events, because it expects a
# thousand of them.
PENDING = f"""
SELECT {_EVENT} FROM (
    SELECT *, {_BYTES_BEFORE} FROM events WHERE position = ANY (ARRAY(
        SELECT position FROM outbox WHERE sequence IS NULL AND position > $1 ORDER BY position LIMIT $2
    ))
) e WHERE e.bytes_before < $3 ORDER BY e.position
"""

# At least one row if the state is the expected one; of nulls if no event is pending. The reading half does
# not see the marks of the other half, since both have the same snapshot, so it leaves out what is marked. A
# set operation is hashed, whereas `<> ALL` would compare each row with each of a thousand positions.
# It does not wait for the disk: the relay runs SYNC_MARKS where the loss of a mark would change the order.
MARK_AND_READ = f"""
{_MARK.format(condition=f"{_UNCHANGED} AND {_WITHOUT_SYNC}")}, pending AS (
    SELECT {_EVENT} FROM (
        SELECT *, {_BYTES_BEFORE} FROM events WHERE position = ANY (ARRAY(
            SELECT position FROM (
                (SELECT position FROM outbox WHERE sequence IS NULL AND position > $7
                 ORDER BY position LIMIT $8 + cardinality($5))
                EXCEPT SELECT unnest($5)
            ) others ORDER BY position LIMIT $8
        ))
    ) e WHERE e.bytes_before < $9
)
SELECT pending.* FROM state LEFT JOIN pending ON true ORDER BY position
"""

HISTORY = f"""
WITH page AS MATERIALIZED (
    SELECT {_EVENT} FROM (
        SELECT *, {_BYTES_BEFORE} FROM (
            SELECT * FROM events WHERE position > $1 ORDER BY position LIMIT $2
        ) first
    ) e WHERE e.bytes_before < $3
)
SELECT *, EXISTS (SELECT FROM outbox o WHERE o.position = page.position AND o.sequence IS NULL)
FROM page ORDER BY position
"""

PUBLISHED = "SELECT sequence, position FROM outbox WHERE epoch = $1 AND sequence > $2 ORDER BY sequence"

MARKED = "SELECT position FROM outbox WHERE epoch = $1 AND position = ANY (CAST($2 AS bigint[]))"

EVENTS = f"""
SELECT {_EVENT} FROM (
    SELECT e.*, nth, sum(octet_length(data)) OVER (ORDER BY nth) - octet_length(data) AS bytes_before
    FROM unnest(CAST($1 AS bigint[])) WITH ORDINALITY AS requested (position, nth)
    JOIN events e USING (position)
) e WHERE e.bytes_before < $2 ORDER BY e.nth
"""

STATE_AND_SNAPSHOT = """
SELECT incarnation, epoch, sequence,
  CAST(CAST(pg_snapshot_xmin(s) AS text) AS bigint), CAST(CAST(pg_snapshot_xmax(s) AS text) AS bigint)
FROM relay_state, pg_current_snapshot() s WHERE id = 1
"""

LAST_POSITION = "SELECT coalesce(max(position), 0) FROM outbox"

COUNT = "SELECT count(*) FROM outbox WHERE sequence IS NULL"

PRUNE = """
WITH pruned AS (
    DELETE FROM outbox WHERE position = ANY (ARRAY(
        SELECT position FROM outbox WHERE published_at < now() - make_interval(secs => $1) LIMIT $2
    )) RETURNING position
)
SELECT count(*) FROM pruned
"""
