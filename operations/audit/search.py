"""`diptych audit search`: who did, tried or looked at what, over all records."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from operations.audit.database import connect

FIRST, LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
STATEMENT = """
SELECT * FROM (
  (SELECT 'audit' AS record, recorded_at, caller, on_behalf_of, type AS what, stream AS about, outcome,
    request_id::text AS id
  FROM audit WHERE {range} AND ($1 = '' OR caller = $1) AND ($2 = '' OR on_behalf_of = $2)
    AND ($3 = '' OR stream = $3) ORDER BY recorded_at DESC LIMIT $6)
  UNION ALL
  (SELECT 'refused_calls', recorded_at, caller, NULL, method, '', reason, calls::text
  FROM refused_calls WHERE {range} AND ($1 = '' OR caller = $1) AND $2 = '' AND $3 = ''
  ORDER BY recorded_at DESC LIMIT $6)
  UNION ALL
  (SELECT 'reads', recorded_at, caller, on_behalf_of, method, array_to_string(ids, ' '), 'READ', trace_id
  FROM reads WHERE {range} AND ($1 = '' OR caller = $1) AND ($2 = '' OR on_behalf_of = $2)
    AND ($3 = '' OR split_part($3, '.', 3) = ANY (ids)) ORDER BY recorded_at DESC LIMIT $6)
  UNION ALL
  (SELECT 'operator_acts', recorded_at, subject, on_behalf_of, act, target, coalesce(outcome, ''),
    number::text
  FROM operator_acts WHERE {range} AND ($1 = '' OR subject = $1) AND ($2 = '' OR on_behalf_of = $2)
    AND ($3 = '' OR position($3 IN target) > 0) ORDER BY recorded_at DESC LIMIT $6)
) found ORDER BY recorded_at DESC, record LIMIT $6
""".replace("{range}", "recorded_at >= $4 AND recorded_at < $5")


async def search(
    database_url: str,
    *,
    caller: str,
    person: str,
    stream: str,
    since: datetime | None,
    until: datetime | None,
    limit: int,
) -> Sequence[Mapping[str, Any]]:
    """Return the rows of all records that match, the latest first.

    Args:
        database_url: of the write model.
        caller: subject of the token; empty for all.
        person: for whom the caller acted; empty for all.
        stream: that a command or an act was about; of reads, its id. Empty for all.
        since: from this time on.
        until: before this time.
        limit: the number of rows; 0 for all.
    """
    async with connect(database_url) as driver:
        values = (caller, person, stream, since or FIRST, until or LAST, limit or None)
        rows = await driver.fetch(STATEMENT, *values)
    return [dict(row) for row in rows]
