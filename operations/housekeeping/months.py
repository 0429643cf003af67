"""Makes the partitions of audit and refused calls ahead, and drops the months that are no longer kept.

How it works. Partitions exist for this month and the two that follow, so housekeeping may be away for two
months. Rows of a month that had none are in the default partition. They move into a partition of their own
once nothing more is recorded for the month, or while there are few: the move locks the default partition.
"""

from datetime import UTC, date, datetime, timedelta

from operations.housekeeping.database import Database
from operations.housekeeping.kinds import Result
from operations.housekeeping.seals import limit_removal, prepare_removal

AHEAD = 2
"""Months after this one for which partitions are made."""
MAX_MOVED = 20_000
"""Rows of this month that may move out of the default partition, within some 0.1 s."""

MONTHS_AHEAD = """
SELECT CAST(date_trunc('month', now() AT TIME ZONE 'UTC') + n * interval '1 month' AS date) AS month
FROM generate_series(1, :ahead) n
"""
MONTHS_IN_DEFAULT = """
SELECT CAST(date_trunc('month', recorded_at AT TIME ZONE 'UTC') AS date) AS month, count(*) AS rows
FROM {table}_default GROUP BY 1 ORDER BY 1
"""
THIS_MONTH = "SELECT CAST(date_trunc('month', now() AT TIME ZONE 'UTC') AS date)"
PARTITIONS = """
SELECT CAST(to_date(right(relname, 7), 'YYYY_MM') AS date) AS month
FROM pg_inherits JOIN pg_class ON oid = inhrelid
WHERE inhparent = CAST(CAST(:table AS text) AS regclass) AND relname ~ '_[0-9]{4}_[0-9]{2}$' ORDER BY 1
"""
COUNT = "SELECT count(*) FROM {table} WHERE recorded_at < :before"
MAKE = "SELECT make_month(CAST(CAST(:table AS text) AS regclass), :month)"
DROP = "SELECT drop_month(CAST(CAST(:table AS text) AS regclass), :month)"
CUTOFF = "SELECT now() - CAST(:retention AS interval)"


async def maintain(
    database: Database, table: str, unexported: bool, retention: timedelta | None, dry_run: bool
) -> Result:
    """Make partitions, and drop whole months that ended longer than `retention` ago, or count their rows.

    Args:
        database: with the table.
        table: in partitions by month.
        unexported: whether months go that are sealed and not exported, too.
        retention: None for no limit.
        dry_run: whether to change nothing.
    """
    if not dry_run:
        await _make_partitions(database, table)
    if retention is None:
        return Result()
    cutoff: datetime = await database.fetch_value(CUTOFF, retention=retention)
    wanted = datetime(cutoff.year, cutoff.month, 1, tzinfo=UTC)
    limit, note = await limit_removal(database, table, wanted, unexported=unexported)
    if limit is None:
        return Result(note=note)
    kept_since = datetime(limit.year, limit.month, 1, tzinfo=UTC)
    if dry_run:
        count = await database.fetch_value(COUNT.format(table=table), before=kept_since)
        return Result(count, kept_since, note)
    months = [
        month for (month,) in await database.fetch(PARTITIONS, table=table) if _start(month) < kept_since
    ]
    if not months:
        return Result(0, kept_since, note)
    await prepare_removal(database, table, kept_since)
    await database.record_removal(table, kept_since)
    removed = 0
    for month in months:
        removed += await database.fetch_value(DROP, table=table, month=month) or 0
    return Result(removed, kept_since, note)


async def _make_partitions(database: Database, table: str) -> None:
    # First those ahead, which have no rows yet: from then on nothing but this month can be missing.
    for (month,) in await database.fetch(MONTHS_AHEAD, ahead=AHEAD):
        await database.fetch_value(MAKE, table=table, month=month)
    this_month: date = await database.fetch_value(THIS_MONTH)
    waiting = dict(await database.fetch(MONTHS_IN_DEFAULT.format(table=table)))
    for month in sorted({this_month, *waiting}):
        if month != this_month or waiting.get(month, 0) <= MAX_MOVED:
            await database.fetch_value(MAKE, table=table, month=month)


def _start(month: date) -> datetime:
    return datetime(month.year, month.month, 1, tzinfo=UTC)
