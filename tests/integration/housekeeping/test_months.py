"""Months of the audit are made ahead, and dropped as a whole once their retention has passed."""

from datetime import UTC, datetime, timedelta

import pytest

from operations.housekeeping import months
from tests.integration.housekeeping.conftest import House

PARTITIONS = (
    "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = '{}'::regclass"
)


def month_of(months_ahead: int) -> datetime:
    """Return the start of a month, counted from this one."""
    now = datetime.now(UTC)
    year, month = divmod(now.year * 12 + now.month - 1 + months_ahead, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC)


def name_of(table: str, months_ahead: int) -> str:
    return f"{table}_{month_of(months_ahead):%Y_%m}"


async def list_partitions(house: House, table: str) -> set[str]:
    return {name for (name,) in await house.fetch(PARTITIONS.format(table))}


@pytest.mark.parametrize("table", ["audit", "refused_calls"])
async def test_missing_months_are_made(house: House, table: str) -> None:
    for ahead in range(3):
        await house.connection.fetchval("SELECT drop_month($1::text::regclass, $2)", table, month_of(ahead))
    assert await house.keep() == 0
    assert await list_partitions(house, table) == {
        f"{table}_default",
        *(name_of(table, ahead) for ahead in range(3)),
    }


async def test_rows_of_a_missing_month_move_to_their_own_partition(house: House) -> None:
    for ahead in range(3):
        await house.connection.fetchval("SELECT drop_month('audit', $1)", month_of(ahead))
    ends = [month_of(0) - timedelta(microseconds=1), month_of(0), month_of(1) - timedelta(microseconds=1)]
    await house.record_audit(*ends)
    assert await house.count("audit_default") == 3
    await house.keep()
    assert await house.count("audit_default") == 0
    assert await house.count(name_of("audit", -1)) == 1
    assert await house.count(name_of("audit", 0)) == 2


async def test_many_rows_of_this_month_stay_until_it_is_over(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(months, "MAX_MOVED", 1)
    await house.connection.fetchval("SELECT drop_month('audit', $1)", month_of(0))
    await house.record_audit(*[month_of(0)] * 2)
    assert await house.keep() == 0
    assert await house.count("audit_default") == 2
    assert name_of("audit", 0) not in await list_partitions(house, "audit")


async def test_months_older_than_the_retention_are_dropped(house: House) -> None:
    times = [month_of(-14), month_of(-13), month_of(-12), month_of(0)]
    await house.record_audit(*times)
    assert await house.keep(keep_audit="unlimited") == 0
    assert house.line_of("audit") == "audit           0 rows removed, everything is kept"
    retention = datetime.now(UTC) - month_of(-12)
    keep_audit = f"{int(retention.total_seconds())}s"
    await house.keep(dry_run=True, keep_audit=keep_audit)
    assert "2 rows to remove" in house.line_of("audit")
    assert await house.count("audit") == 4
    await house.keep(keep_audit=keep_audit)
    assert f"2 rows removed, kept since {month_of(-12):%Y-%m-%d} 00:00Z" in house.line_of("audit")
    assert await house.count("audit") == 2
    assert name_of("audit", -13) not in await list_partitions(house, "audit")


async def test_a_detached_month_is_left_alone(house: House) -> None:
    await house.record_audit(month_of(-3))
    await house.keep()
    await house.connection.fetchval("SELECT detach_month('audit', $1)", month_of(-3))
    await house.keep(keep_audit="1h")
    assert await house.count(name_of("audit", -3)) == 1


async def test_a_month_in_use_costs_its_own_line_only(house: House) -> None:
    await house.record_audit(month_of(-3))
    await house.keep()
    async with house.connection.transaction():
        await house.count("audit")
        other = House(house.database_url, None)
        assert await other.keep(keep_audit="1d") == 1
    assert "not done: canceling statement due to lock timeout" in other.line_of("audit")
    assert "answers removed" in other.line_of("requests")
    assert await house.keep(keep_audit="1d") == 0
    assert "1 rows removed" in house.line_of("audit")
