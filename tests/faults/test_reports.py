"""The health figures and the list of living processes while processes are killed and stores are frozen."""

from collections.abc import AsyncIterator, Mapping
from uuid import uuid4

import grpc
import pytest
from redis.asyncio import Redis

from devstack.stack import Stack
from operations.processes import COMMAND_SERVER, PROJECTOR, QUERY_SERVER, RELAY
from operations_server.stores import create_database
from runtime.process_reports.figures import Figure
from runtime.process_reports.health import Health, Reports
from runtime.process_reports.postgres_reports import PostgresReports
from runtime.process_reports.redis_reports import RedisReports
from tests.support.harness.invariants import verify_stack
from tests.support.harness.waiting import until
from tests.support.ledger.clerk import Clerk, cheque_of
from tests.support.ledger.stubs import commands

ALL = {"command_server": 2, "relay": 2, "projector": 1, "query_server": 2}
"""The processes of the stack."""


@pytest.fixture
async def reports(stack: Stack) -> AsyncIterator[Reports]:
    database = create_database(stack.settings.database_url)
    async with Redis.from_url(stack.settings.redis_url) as redis:
        yield Reports(
            stack.settings, PostgresReports(database).read, RedisReports(redis.execute_command).read
        )
    await database.dispose()


async def read_figures(reports: Reports) -> Mapping[str, Figure]:
    return {figure.name: figure for figure in (await reports.read()).figures}


def count_living(health: Health) -> dict[str, int]:
    kinds = [each.report.kind for each in health.living]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


async def lives(reports: Reports, **expected: int) -> bool:
    return count_living(await reports.read()) == dict(sorted({**ALL, **expected}.items()))


async def reject_one(clerk: Clerk) -> None:
    request = commands.EndorseChequeRequest(request_id=str(uuid4()), cheque_id="no-such-cheque")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await next(clerk._commands).EndorseCheque(request, metadata=clerk.bearer)
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.long
async def test_figures_and_living_processes_are_true_while_processes_are_killed(
    stack: Stack, clerk: Clerk, reports: Reports
) -> None:
    await until(lambda: lives(reports), 30)
    receipt = await clerk.write(cheque_of("ada"))
    await clerk.get(receipt.aggregate_id, receipt.consistency_token)
    await reject_one(clerk)

    async def are_counted() -> bool:
        found = await read_figures(reports)
        return all(found[name].value is not None for name in found)

    await until(are_counted, 30)
    found = await read_figures(reports)
    assert found["command success rate"].value == 100.0, "a rejected command is no failure"
    assert found["failed events"].value == 0
    assert found["read model staleness"].good
    assert sum(bool(each.report.leads) for each in (await reports.read()).living) == 1
    await shows_a_killed_projector(stack, reports)
    await shows_a_frozen_leader(stack, reports)
    await shows_a_frozen_database(stack, clerk, reports)
    await until(lambda: lives(reports), 40)
    report = await verify_stack(stack)
    assert report.clean, report.to_text()


async def shows_a_killed_projector(stack: Stack, reports: Reports) -> None:
    (projector,) = stack.of(PROJECTOR)
    await projector.kill()

    async def is_stale() -> bool:
        return not (await read_figures(reports))["read model staleness"].good

    await until(is_stale, 25)
    await until(lambda: lives_without_projector(reports), 30)
    await projector.start()
    await until(lambda: lives(reports), 30)

    async def is_fresh() -> bool:
        return (await read_figures(reports))["read model staleness"].good

    await until(is_fresh, 30)


async def shows_a_frozen_leader(stack: Stack, reports: Reports) -> None:
    """Its last report says that it leads; that of the standby says the same soon, and its own ages out."""
    (leading,) = await list_leaders(reports)
    pid = int(leading.split(":")[1])
    (relay,) = [relay for relay in stack.of(RELAY) if relay.child.process.pid == pid]
    relay.child.freeze()
    try:

        async def has_another_leader() -> bool:
            leaders = await list_leaders(reports)
            return len(leaders) == 1 and leading not in leaders

        await until(has_another_leader, 40)
    finally:
        relay.child.thaw()

    async def have_one_leader() -> bool:
        return len(await list_leaders(reports)) == 1 and await lives(reports)

    await until(have_one_leader, 40)


async def list_leaders(reports: Reports) -> list[str]:
    return [each.instance for each in (await reports.read()).living if each.report.leads]


async def lives_without_projector(reports: Reports) -> bool:
    return "projector" not in count_living(await reports.read())


async def shows_a_frozen_database(stack: Stack, clerk: Clerk, reports: Reports) -> None:
    """The failures of the outage show as soon as it is over; queries go on meanwhile."""
    postgres = stack.servers["database_url"]
    postgres.child.freeze()
    try:
        health = await reports.read()
        assert health.errors.keys() == {"PostgreSQL"}
        assert {each.report.kind for each in health.living} == {"projector", "query_server"}
        with pytest.raises(grpc.aio.AioRpcError):
            await next(clerk._commands).WriteCheque(cheque_of("bob"), metadata=clerk.bearer, timeout=3)
    finally:
        postgres.child.thaw()

    async def has_failures() -> bool:
        return ((await read_figures(reports))["command success rate"].value or 100.0) < 100.0

    await until(has_failures, 40)
    assert len(stack.of(COMMAND_SERVER)) == len(stack.of(RELAY)) == len(stack.of(QUERY_SERVER)) == 2
