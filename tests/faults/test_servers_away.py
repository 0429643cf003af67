"""A server is away for a while: frozen, or killed and started again. No process ends, all recover alone."""

import asyncio

import asyncpg
import pytest

from devstack.stack import Stack
from operations.processes import COMMAND_SERVER, PROJECTOR, QUERY_SERVER, RELAY, check_health
from tests.support.harness.invariants import all_is_well
from tests.support.harness.traffic import Traffic
from tests.support.harness.waiting import until

KILLED, FROZEN = 12.0, 4.0
"""Seconds that a server is away. Twelve are longer than any pause of whoever tries again. Four are longer
than a probe's patience, a reader's silence and most pauses; what only shows after more shows with a server
that is gone as well as with one that hangs."""
SLOWLY = 0.3
"""Seconds between two commands of a caller: an absence meets hundreds, and all are verified afterwards."""
NEEDS = {"database_url": COMMAND_SERVER, "redis_url": QUERY_SERVER, "nats_url": None}
"""Whose callers a server's absence is visible to."""


@pytest.mark.parametrize(
    ("setting", "how"),
    [
        ("database_url", "frozen"),
        ("database_url", "killed"),
        ("nats_url", "frozen"),
        ("nats_url", "killed"),
        ("redis_url", "frozen"),
        ("redis_url", "killed"),
    ],
)
async def test_a_server_that_is_away_ends_no_process_and_is_taken_up_again(
    stack: Stack, traffic: Traffic, setting: str, how: str
) -> None:
    server = stack.servers[setting]
    pids = [process.child.process.pid for process in stack.processes]
    async with traffic.flowing(SLOWLY):
        await traffic.more(30)
        pending = await _pending(stack) if setting == "nats_url" else 0
        if how == "frozen":
            server.child.freeze()
        else:
            await server.kill()
        try:
            await _health_is_as_it_should_be(stack, setting)
            if setting != "database_url":
                await traffic.more(30)
            await asyncio.sleep(FROZEN if how == "frozen" else KILLED)
            if setting == "nats_url":
                assert await _pending(stack) > pending
        finally:
            if how == "frozen":
                server.child.thaw()
            else:
                await server.start()
        for process in stack.processes:
            await process.wait_serving()
        await traffic.more(30)
    assert [process.child.process.pid for process in stack.processes] == pids
    assert all(process.child.running for process in stack.processes)
    await all_is_well(stack, traffic.answers)


async def _health_is_as_it_should_be(stack: Stack, setting: str) -> None:
    """Only those who cannot do their job say so."""
    for kind in (COMMAND_SERVER, QUERY_SERVER):
        expected = "NOT_SERVING" if NEEDS[setting] is kind else "SERVING"
        for process in stack.of(kind):

            async def holds(address: str = process.address, expected: str = expected) -> bool:
                return await check_health(address) == expected

            await until(holds)
    if setting != "database_url":
        assert await check_health(stack.of(COMMAND_SERVER)[0].address) == "SERVING"
    for process in (*stack.of(RELAY), *stack.of(PROJECTOR)):
        assert process.child.running


async def _pending(stack: Stack) -> int:
    connection = await asyncpg.connect(stack.settings.database_url)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM outbox WHERE sequence IS NULL"))
    finally:
        await connection.close()
