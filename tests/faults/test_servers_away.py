"""A server is unreachable for a while: frozen, or killed and restarted. All processes survive and recover."""

import asyncio

import pytest

from devstack.stack import Stack
from operations.processes import COMMAND_SERVER, PROJECTOR, QUERY_SERVER, RELAY, check_health
from tests.support.harness.invariants import assert_consistent
from tests.support.harness.outbox import count_pending
from tests.support.harness.traffic import Traffic
from tests.support.harness.waiting import until

KILLED, KILLED_LONG, FROZEN = 3.0, 12.0, 4.0
"""Seconds of an outage, counted from when health reports it.

The short one exceeds the longest pause between retries, which is 2 s. The long one allows many retries.
A frozen server must exceed a probe's timeout and a reader's idle timeout; it needs no longer outage, since
retries fail in the same way as with a killed server.
"""
COMMAND_PAUSE = 0.3
"""Seconds between two commands of a caller: an outage meets hundreds, and all are verified afterwards."""
NEEDS = {"database_url": COMMAND_SERVER, "redis_url": QUERY_SERVER, "nats_url": None}
"""The processes that report NOT_SERVING while a server is unreachable."""


@pytest.mark.parametrize(
    ("outage", "seconds"),
    [
        pytest.param("frozen", FROZEN, id="frozen"),
        pytest.param("killed", KILLED, id="killed", marks=pytest.mark.long),
        pytest.param("killed", KILLED_LONG, id="killed-long", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize(
    "setting", ["database_url", "nats_url", pytest.param("redis_url", marks=pytest.mark.long)]
)
async def test_processes_survive_an_unreachable_server_and_recover(
    stack: Stack, traffic: Traffic, setting: str, outage: str, seconds: float
) -> None:
    server = stack.servers[setting]
    pids = [process.child.process.pid for process in stack.processes]
    async with traffic.flowing(COMMAND_PAUSE):
        await traffic.more(30)
        pending_before = await count_pending(stack) if setting == "nats_url" else 0
        if outage == "frozen":
            server.child.freeze()
        else:
            await server.kill()
        try:
            await _check_health_of_all(stack, setting)
            if setting != "database_url":
                await traffic.more(30)
            await asyncio.sleep(seconds)  # the length of the outage, not a wait for anything
            if setting == "nats_url":
                assert await count_pending(stack) > pending_before
        finally:
            if outage == "frozen":
                server.child.thaw()
            else:
                await server.start()
        for process in stack.processes:
            await process.wait_serving()
        await traffic.more(30)
    assert [process.child.process.pid for process in stack.processes] == pids
    assert all(process.child.running for process in stack.processes)
    await assert_consistent(stack, traffic.answers)


async def _check_health_of_all(stack: Stack, setting: str) -> None:
    """Wait until exactly the processes that cannot work without the server report NOT_SERVING."""
    for kind in (COMMAND_SERVER, QUERY_SERVER):
        expected = "NOT_SERVING" if NEEDS[setting] is kind else "SERVING"
        for process in stack.of(kind):

            async def has_health(address: str = process.address, expected: str = expected) -> bool:
                return await check_health(address) == expected

            await until(has_health)
    if setting != "database_url":
        assert await check_health(stack.of(COMMAND_SERVER)[0].address) == "SERVING"
    for process in (*stack.of(RELAY), *stack.of(PROJECTOR)):
        assert process.child.running
