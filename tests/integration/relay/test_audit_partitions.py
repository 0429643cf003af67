"""The audit's months: no command fails for want of a partition, and a month can be detached."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest

from command_server.kernel.decider import RejectionKind
from command_server.kernel.outcomes import Rejection
from command_server.kernel.ports import Changes, RequestRow
from command_server.postgres.event_store import PostgresEventStore

LAST_INSTANT = datetime(2031, 1, 31, 23, 59, 59, 999_999, tzinfo=UTC)
JANUARY, FEBRUARY = date(2031, 1, 1), date(2031, 2, 1)
COUNT_BY_PARTITION = "SELECT tableoid::regclass::text AS name, count(*) FROM audit GROUP BY 1 ORDER BY 1"

Database = asyncpg.Connection


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def record_at(database_url: str, time: datetime) -> None:
    """Record a command that was decided at this time."""
    outcome = Rejection("WHY_NOT", RejectionKind.RULE)
    row = RequestRow("alice", str(uuid4()), "t.Do", b"#", outcome, "a.b.1", None, "c", None, None, 7, time)
    store = PostgresEventStore(database_url)
    async with store.begin() as transaction:
        await transaction.commit(Changes(requests=[row]))
    await store.close()


async def count_by_partition(database: Database) -> dict[str, int]:
    return {row["name"]: row["count"] for row in await database.fetch(COUNT_BY_PARTITION)}


async def test_a_command_of_a_month_without_a_partition_is_on_record(
    database_url: str, database: Database
) -> None:
    await record_at(database_url, LAST_INSTANT)
    assert await count_by_partition(database) == {"audit_default": 1}


async def test_the_ends_of_a_month_are_in_its_own_partition(database_url: str, database: Database) -> None:
    for month in (JANUARY, FEBRUARY):
        assert await database.fetchval("SELECT make_month('audit', $1)", month)
    await database.execute("SET timezone = 'Pacific/Kiritimati'")
    await record_at(database_url, LAST_INSTANT)
    await record_at(database_url, LAST_INSTANT + timedelta(microseconds=1))
    assert await count_by_partition(database) == {"audit_2031_01": 1, "audit_2031_02": 1}


async def test_a_partition_made_late_takes_its_rows_over(database_url: str, database: Database) -> None:
    await record_at(database_url, LAST_INSTANT)
    await record_at(database_url, LAST_INSTANT + timedelta(microseconds=1))
    await database.execute("SET timezone = 'America/Los_Angeles'")
    assert await database.fetchval("SELECT make_month('audit', $1)", JANUARY)
    assert not await database.fetchval("SELECT make_month('audit', $1)", JANUARY)
    assert await count_by_partition(database) == {"audit_2031_01": 1, "audit_default": 1}


async def test_commands_go_on_while_a_month_is_made_and_detached(
    database_url: str, database: Database
) -> None:
    await record_at(database_url, LAST_INSTANT)
    async with database.transaction():
        await database.fetchval("SELECT make_month('audit', $1)", JANUARY)
        async with asyncio.timeout(10):
            await record_at(database_url, datetime.now(UTC))
    assert await database.fetchval("SELECT detach_month('audit', $1)", JANUARY)
    assert "audit_2031_01" not in await count_by_partition(database)
    assert await database.fetchval("SELECT count(*) FROM audit_2031_01") == 1


async def test_only_tables_by_month_are_dropped(database: Database) -> None:
    with pytest.raises(asyncpg.RaiseError, match="not a table in partitions"):
        await database.fetchval("SELECT make_month('events', $1)", JANUARY)
    assert await database.fetchval("SELECT drop_month('audit', $1)", JANUARY) is None
