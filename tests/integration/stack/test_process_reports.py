"""Reports of processes in PostgreSQL and in Redis: written in each process's role, and read by operators'."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import asyncpg
import pytest
from redis.asyncio import Redis

from command_server.postgres.event_store import session_settings
from command_server.postgres.schema import RELAY_ROLE, SERVICE_ROLE
from operations_server.stores import create_database
from process_manager.postgres.schema import ROLE as PROCESS_MANAGER_ROLE
from runtime.postgres import create_engine
from runtime.process_reports import postgres_reports, redis_reports, reporter
from runtime.process_reports.postgres_reports import PostgresReports
from runtime.process_reports.redis_reports import REPORTS, TIMES, RedisReports
from runtime.process_reports.report import INSTANCE, KEPT, Report, encode
from runtime.process_reports.reporter import Reporter
from runtime.process_reports.stored_report import StoredReport
from runtime.process_reports.window import Window
from tests.support.harness.waiting import until

REPORT = encode(Report("command_server", "1.0", 3.0, leads=True, partitions=[1, 2]))

Read = Callable[[], Awaitable[Sequence[StoredReport]]]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


async def read_one(read: Read) -> StoredReport:
    (found,) = await read()
    return found


@pytest.mark.parametrize("role", [SERVICE_ROLE, RELAY_ROLE, PROCESS_MANAGER_ROLE])
async def test_each_role_may_report_and_operators_may_read(database_url: str, role: str) -> None:
    engine = create_engine(database_url, session=session_settings(role))
    operators = create_database(database_url)
    await PostgresReports(engine).write(REPORT)
    await PostgresReports(engine).write(REPORT)
    found = await read_one(PostgresReports(operators).read)
    assert (found.instance, found.report.leads, found.report.partitions) == (INSTANCE, True, [1, 2])
    assert 0 <= found.age < 60
    await engine.dispose()
    await operators.dispose()


async def test_the_table_is_unlogged(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    kind = await connection.fetchval("SELECT relpersistence FROM pg_class WHERE relname = 'process_reports'")
    await connection.close()
    assert kind == b"u"


@pytest.mark.parametrize("age", [f"- interval '{KEPT + 1} s'", "+ interval '1 hour'"])
async def test_reports_that_ended_or_are_of_the_future_leave_postgres(
    database_url: str, monkeypatch: pytest.MonkeyPatch, age: str
) -> None:
    engine = create_engine(database_url)
    connection = await asyncpg.connect(database_url)
    await connection.execute(f"INSERT INTO process_reports VALUES ('gone', now() {age}, '{REPORT.decode()}')")
    await PostgresReports(engine).write(REPORT)
    assert [row[0] for row in await connection.fetch("SELECT instance FROM process_reports")] == [INSTANCE]
    await connection.close()
    await engine.dispose()


async def test_reports_in_redis(redis: Redis) -> None:
    reports = RedisReports(redis.execute_command)
    assert await reports.read() == []
    await reports.write(REPORT)
    await reports.write(REPORT)
    found = await read_one(reports.read)
    assert (found.instance, found.report.partitions) == (INSTANCE, [1, 2])
    assert 0 <= found.age < 60
    for key in (REPORTS, TIMES):
        assert 0 < await redis.ttl(key) <= KEPT


@pytest.mark.parametrize("shift", [-KEPT - 1, 3_600])
async def test_reports_that_ended_or_are_of_the_future_leave_redis(redis: Redis, shift: float) -> None:
    seconds, _ = await redis.time()
    await redis.zadd(TIMES, {"gone": int((seconds + shift) * 1000)})
    await redis.hset(REPORTS, "gone", REPORT.decode())
    await RedisReports(redis.execute_command).write(REPORT)
    assert await redis.hkeys(REPORTS) == await redis.zrange(TIMES, 0, -1) == [INSTANCE.encode()]


async def test_keys_of_other_types_are_replaced(redis: Redis) -> None:
    for key in (REPORTS, TIMES):
        await redis.set(key, "somebody else's")
    reports = RedisReports(redis.execute_command)
    await reports.write(REPORT)
    assert (await read_one(reports.read)).instance == INSTANCE


async def test_many_reports_are_read_in_bounded_number(
    redis: Redis, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, engine = await asyncpg.connect(database_url), create_engine(database_url)
    for module in (postgres_reports, redis_reports):
        monkeypatch.setattr(module, "MAX_REPORTS", 3)
    seconds, _ = await redis.time()
    for number in range(5):
        name, age = f"p-{number}", number
        await redis.zadd(TIMES, {name: (seconds - age) * 1000})
        await redis.hset(REPORTS, name, REPORT.decode())
        await connection.execute(
            f"INSERT INTO process_reports VALUES ('{name}', now() - interval '{age} s', '{REPORT.decode()}')"
        )
    for reports in (RedisReports(redis.execute_command), PostgresReports(engine)):
        assert [each.instance for each in await reports.read()] == ["p-0", "p-1", "p-2"]
    await connection.close()
    await engine.dispose()


async def test_a_store_that_hangs_costs_the_reports_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each report that is late gives up, and what was measured meanwhile is in the next one."""
    monkeypatch.setattr(reporter, "TIMEOUT", 0.01)
    monkeypatch.setattr(reporter, "INTERVAL", 0.01)
    begun, stored, hangs = [], [], True

    async def write(report: bytes) -> None:
        begun.append(report)
        if hangs:
            await asyncio.Event().wait()
        stored.append(report)

    running = asyncio.create_task(Reporter("relay", (), Window(), write).run())
    await until(lambda: len(begun) > 3)
    assert stored == []
    hangs = False
    await until(lambda: bool(stored))
    running.cancel()
