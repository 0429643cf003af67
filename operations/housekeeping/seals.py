"""What housekeeping may remove of sealed records, and what it keeps so that the rest can be verified.

How it works. Only what is sealed and exported may go, the latter unless the operator says otherwise. Rows go
by their time, segments are ranges of keys: a segment may lose some of its rows. The leaves of those are kept
(`audit_removed_rows`), so that its root can still be computed; the segments before it are recorded as removed
as a whole (`audit_removals`). Both are written before the rows go.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from operations.housekeeping.database import Database
from runtime.audit.records import RECORDS, Record

MARGIN = timedelta(hours=1)
"""How far the time of a row may be from that of its insert."""
NOT_SEALED = "the rest is not sealed yet"
NOT_EXPORTED = "the rest is not exported: run diptych audit export, or pass --unexported"

READ_LIMIT = """
SELECT CAST((SELECT sealed_at FROM audit_sealer WHERE id = 1) AS timestamptz) AS sealed_until,
  (SELECT max(complete_until) FROM audit_exports) AS exported_until
"""
FIND_OLD = "SELECT EXISTS (SELECT FROM {table} WHERE recorded_at < :before)"
FIND_FIRST_KEPT = """
SELECT min({key}) FROM {table} WHERE {condition} AND recorded_at >= $1 AND recorded_at < $1 + $2::interval
"""
FIND_SEGMENT = """
SELECT after FROM audit_segments WHERE record = $1 AND until >= $2 ORDER BY until LIMIT 1
"""
FIND_LAST = "SELECT coalesce(max(until), 0) FROM audit_segments WHERE record = $1"
KEEP_LEAVES = """
INSERT INTO audit_removed_rows (record, key, leaf, recorded_at)
SELECT $1, * FROM unnest($2::bigint[], $3::bytea[], $4::timestamptz[]) ON CONFLICT DO NOTHING
"""
RECORD_REMOVAL = """
INSERT INTO audit_removals (record, until, before) SELECT $1, $2, $3
WHERE NOT EXISTS (SELECT FROM audit_removals WHERE record = $1 AND until >= $2)
"""
DROP_LEAVES = "DELETE FROM audit_removed_rows WHERE record = $1 AND key <= $2"


@dataclass(frozen=True, slots=True)
class Limit:
    """The time up to which records may be removed, and what holds later ones."""

    time: datetime
    note: str


async def limit_removal(
    database: Database, table: str, kept_since: datetime, *, unexported: bool
) -> tuple[datetime | None, str]:
    """Return the time up to which rows may go, and a note if others would go but for their seals.

    Args:
        database: with the table.
        table: its name.
        kept_since: the time that the retention allows.
        unexported: whether rows may go that are sealed and not exported.

    Returns:
        None for the time if nothing may go.
    """
    limit = await _read_limit(database, unexported=unexported)
    if kept_since <= limit.time:
        return kept_since, ""
    waits = await database.fetch_value(FIND_OLD.format(table=table), before=kept_since)
    return (limit.time if limit.time.year > 1 else None), limit.note if waits else ""


async def _read_limit(database: Database, *, unexported: bool) -> Limit:
    """Return the time up to which all records are sealed, and exported unless that is not required."""
    row: Any
    async with database.connect() as driver:
        row = await driver.fetchrow(READ_LIMIT)
    never = datetime(1, 1, 1, tzinfo=UTC) + 2 * MARGIN
    sealed = _bound(row["sealed_until"], never)
    exported = sealed if unexported else _bound(row["exported_until"], never)
    note = NOT_SEALED if sealed <= exported else NOT_EXPORTED
    return Limit(min(sealed, exported) - MARGIN, note)


def _bound(time: datetime | None, never: datetime) -> datetime:
    return never if time is None or time.year < 2 else time


async def prepare_removal(database: Database, table: str, before: datetime) -> None:
    """Keep what is needed to verify the rest of a table once rows from before a time are removed."""
    async with database.connect() as driver:
        for record in RECORDS:
            if record.table == table:
                async with driver.transaction():
                    await _prepare(driver, record, before)


async def _prepare(driver: Any, record: Record, before: datetime) -> None:
    names = {"key": record.key, "table": record.table, "condition": record.condition}
    first: int | None = None
    for period in (timedelta(days=1), timedelta(days=365_000)):
        first = await driver.fetchval(FIND_FIRST_KEPT.format(**names), before, period)
        if first is not None:
            break
    after = await driver.fetchval(FIND_SEGMENT, record.name, first) if first is not None else None
    if after is None:  # no sealed row is kept
        after = await driver.fetchval(FIND_LAST, record.name)
    last = await driver.fetchval(FIND_LAST, record.name)
    rows = [
        record.build_row(tuple(row))
        for row in await driver.fetch(record.select("recorded_at < $4"), after, last, None, before)
    ]
    if rows:
        columns = [[row.key for row in rows], [row.leaf for row in rows], [row.recorded_at for row in rows]]
        await driver.execute(KEEP_LEAVES, record.name, *columns)
    await driver.execute(RECORD_REMOVAL, record.name, after, before)
    await driver.execute(DROP_LEAVES, record.name, after)
