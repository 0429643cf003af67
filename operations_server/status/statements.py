"""The SQL of the status. Every statement commits by itself, and is bounded whatever the history."""

from runtime.kept_session import has_ended
from runtime.leader_lease import DURATION

OUTBOX = f"""
SELECT now() AS read_at, CAST(s.incarnation AS text) AS incarnation,
  coalesce(CAST(s.epoch AS text), '') AS epoch, s.sequence,
  CASE WHEN s.leader IS NULL OR {has_ended("s.leader")}
    OR s.lease_until NOT BETWEEN now() AND now() + make_interval(secs => {DURATION + 1}) THEN ''
    ELSE s.leader END AS leader,
  p.pending, extract(epoch FROM now() - e.recorded_at) AS oldest_age, pg_is_in_recovery() AS in_recovery,
  extract(epoch FROM clock_timestamp()) AS now, current_setting('server_version') AS version,
  (SELECT extract(epoch FROM now() - sealed_at) FROM audit_sealer WHERE id = 1) AS seal_age
FROM relay_state s
CROSS JOIN (
  SELECT count(*) AS pending, min(position) AS first FROM (
    SELECT position FROM outbox WHERE sequence IS NULL ORDER BY position LIMIT {{max_pending}}
  ) o
) p
LEFT JOIN events e ON e.position = p.first
WHERE s.id = 1
"""  # noqa: S608 - composed of constants

# The position below which all marked rows are at or before a checkpoint, but for rows of transactions that
# committed late. A bisection, since sequences have no index: they rise with the positions. $1 and $2: the
# checkpoint; $3: the current epoch.
FIND_START = """
WITH RECURSIVE search (low, high) AS (
  SELECT coalesce(min(position), 1) - 1, coalesce(max(position), 0) + 1 FROM outbox
  UNION ALL
  SELECT CASE WHEN after THEN low ELSE mid END, CASE WHEN after THEN mid ELSE high END
  FROM (SELECT low, high, low + (high - low) / 2 AS mid FROM search WHERE high - low > {slack}) s
  CROSS JOIN LATERAL (
    SELECT coalesce((
      SELECT o.sequence IS NULL OR (o.epoch = CAST($1 AS uuid) AND o.sequence > $2)
        OR (o.epoch = CAST($3 AS uuid) AND o.epoch <> CAST($1 AS uuid))
      FROM outbox o WHERE o.position >= s.mid ORDER BY o.position LIMIT 1
    ), true) AS after
  ) probe
)
SELECT low FROM search ORDER BY high - low LIMIT 1
"""

# Events after a position, and pending ones at or before it. $3: the time after which events are left out.
BACKLOG = """
SELECT o.position, coalesce(CAST(o.epoch AS text), '') AS epoch, o.sequence, e.stream,
  extract(epoch FROM CAST($3 AS timestamptz) - e.recorded_at) AS age
FROM (
  (SELECT position, epoch, sequence FROM outbox WHERE position > $1 ORDER BY position LIMIT $2)
  UNION ALL
  (SELECT position, epoch, sequence FROM outbox WHERE sequence IS NULL AND position <= $1
   ORDER BY position LIMIT $2)
) o JOIN events e USING (position)
WHERE e.recorded_at <= $3 ORDER BY o.position
"""

SAGA_HOLDERS = f"""
SELECT contexts, partition, holder FROM saga_leases
WHERE until > now() AND NOT {has_ended("holder")}
"""  # noqa: S608 - composed of constants
