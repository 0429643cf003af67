"""The statements of the leases. PostgreSQL's clock alone decides on expiry.

Rows that another session has locked are skipped: one row would stop all sagas of a process. A lease whose row
is locked stays with its holder, since nobody else can take it.
"""

from runtime.kept_session import has_ended

CHANNEL = "saga_leases"
LOCK = "SELECT pg_advisory_xact_lock(0x53414741)"
TRY_LOCK = LOCK.replace("pg_advisory", "pg_try_advisory")
NOTIFY = f"SELECT pg_notify('{CHANNEL}', $1)"

_SILENT_TARGETS = """
(SELECT coalesce(jsonb_object_agg(
  target, jsonb_build_object('since', now() - make_interval(secs => seconds), 'error', error)
), '{{}}') FROM unnest(${}::text[], ${}::float[], ${}::text[]) AS t (target, seconds, error))
"""
_IS_CURRENT = "until BETWEEN now() AND now() + make_interval(secs => ${})"
_UNTIL = "now() + make_interval(secs => $3)"


def _is_unlocked(table: str, condition: str) -> str:
    """Return the condition of a row that meets another one, and that no other session has locked."""
    locked = f"SELECT ctid FROM {table} WHERE {condition} FOR UPDATE SKIP LOCKED"  # noqa: S608 - constants
    return f"ctid = ANY (ARRAY({locked}))"


RENEW = f"""
WITH member AS (
  UPDATE saga_managers SET until = {_UNTIL}, silent_targets = {_SILENT_TARGETS.format(5, 6, 7)}
  WHERE {_is_unlocked("saga_managers", "contexts = $1 AND name = $2")}
), held AS (
  UPDATE saga_leases SET until = {_UNTIL}
  WHERE {_is_unlocked("saga_leases", "contexts = $1 AND holder = $2")} RETURNING partition
), members AS (
  SELECT CASE WHEN name = $2 THEN false
    ELSE {has_ended("name")} OR NOT {_IS_CURRENT.format(4)} END AS ended
  FROM saga_managers WHERE contexts = $1
)
SELECT EXISTS (SELECT FROM saga_managers WHERE contexts = $1 AND name = $2) AS is_member,
  ARRAY(SELECT partition FROM held) AS partitions,
  (SELECT count(*) FROM members) AS members,
  EXISTS (SELECT FROM members WHERE ended) AS ended,
  (SELECT count(*) FROM saga_leases
   WHERE contexts = $1 AND holder <> $2 AND {_IS_CURRENT.format(4)}) AS leased_by_others
"""  # noqa: S608 - composed of constants
"""Renews, and returns what tells whether partitions have to change hands."""

JOIN = f"""
INSERT INTO saga_managers (contexts, name, until, silent_targets)
VALUES ($1, $2, {_UNTIL}, {_SILENT_TARGETS.format(4, 5, 6)})
ON CONFLICT (contexts, name) DO NOTHING
"""  # noqa: S608 - composed of constants
"""Begins a membership. One that exists may have a locked row, for which it does not wait."""
_HAS_ENDED = f"CASE WHEN name = $1 THEN false ELSE {has_ended('name')} OR NOT {_IS_CURRENT.format(2)} END"
DELETE_ENDED_MEMBERS = f"DELETE FROM saga_managers WHERE {_is_unlocked('saga_managers', _HAS_ENDED)}"  # noqa: S608
COMPUTE_SHARE = "SELECT ceil($2::numeric / count(*))::int FROM saga_managers WHERE contexts = $1"
_IS_FREE = f"""
NOT {_IS_CURRENT.format(3)} OR holder NOT IN (SELECT name FROM saga_managers)
OR holder = $1 AND partition NOT IN (
  SELECT partition FROM saga_leases WHERE holder = $1 ORDER BY partition LIMIT $2
)
"""  # noqa: S608 - composed of constants
RELEASE = f"DELETE FROM saga_leases WHERE {_is_unlocked('saga_leases', _IS_FREE)} RETURNING holder"  # noqa: S608
ACQUIRE = f"""
INSERT INTO saga_leases (contexts, partition, holder, until)
SELECT $1, partition, $2, {_UNTIL} FROM generate_series(0, $4 - 1) AS partition
WHERE partition NOT IN (SELECT partition FROM saga_leases WHERE contexts = $1)
LIMIT greatest(0, $5 - (SELECT count(*) FROM saga_leases WHERE holder = $2))
"""  # noqa: S608 - composed of constants
LIST_HELD = "SELECT partition FROM saga_leases WHERE holder = $1"
RELEASE_ALL = "DELETE FROM saga_leases WHERE holder = $1"
END_MEMBERSHIP = "DELETE FROM saga_managers WHERE name = $1"
