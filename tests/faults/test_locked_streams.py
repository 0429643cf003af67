"""Somebody else's transaction holds locks for long: only commands that need them are delayed or refused."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from devstack.stack import Stack
from operations.processes import check_health
from tests.support.harness.depositors import Depositors
from tests.support.harness.invariants import verify_stack

pytestmark = pytest.mark.long
LOCKED = 4.0
"""Seconds of the lock: longer than a batch of the servers waits for it."""
INNOCENT = range(8)
"""Callers whose accounts nobody locks."""
AFFECTED = range(8, 16)
EARLY = 2.0
"""Seconds within which an affected caller is answered on a busy machine."""
REASONS = {"WRITE_MODEL_LOCKED", "OVERLOADED"}


@pytest.fixture
async def depositors(stack: Stack) -> AsyncIterator[Depositors]:
    depositors = Depositors(stack, secrets.randbits(32))
    yield depositors
    await depositors.close()


@asynccontextmanager
async def locked(stack: Stack, statement: str, *arguments: object) -> AsyncIterator[None]:
    connection = await asyncpg.connect(stack.settings.database_url)
    try:
        async with connection.transaction():
            await connection.execute(statement, *arguments)
            yield
    finally:
        await connection.close()


async def test_a_locked_stream_delays_its_own_commands_only(stack: Stack, depositors: Depositors) -> None:
    await depositors.run(None, 0.5, range(16))
    streams = [f"ledger.account.{depositors.account}-{number}" for number in AFFECTED]
    async with locked(stack, "SELECT FROM streams WHERE id = ANY($1) FOR UPDATE", streams):
        innocent, affected = await asyncio.gather(
            depositors.run(None, LOCKED, INNOCENT), depositors.run(None, LOCKED, AFFECTED, patience=0.0)
        )
    recovered = await depositors.measure_recovery()
    print(f"innocent: {innocent.summarise()}")
    print(f"affected: {affected.summarise()}; recovered in {recovered:.2f} s")
    assert innocent.seconds.keys() == {"OK"}
    assert max(innocent.seconds["OK"]) < 1.0
    assert innocent.answered > 100
    assert affected.seconds.keys() <= REASONS
    assert max(max(each) for each in affected.seconds.values()) < EARLY
    assert all(hint <= 1.5 for each in affected.hints.values() for hint in each)
    await assert_healed(stack, depositors)


@pytest.mark.parametrize("lock", ["streams", "events IN SHARE MODE"])
async def test_a_locked_table_has_callers_refused_early(
    stack: Stack, depositors: Depositors, lock: str
) -> None:
    await depositors.run(None, 0.5)
    async with locked(stack, f"LOCK TABLE {lock}"):
        refused = await depositors.run(None, LOCKED, patience=0.0)
        health = [await check_health(process.address) for process in stack.processes]
    recovered = await depositors.measure_recovery()
    print(f"{lock}: {refused.summarise()}; recovered in {recovered:.2f} s")
    assert refused.seconds.keys() <= REASONS
    assert max(max(each) for each in refused.seconds.values()) < 2 * EARLY
    assert refused.hints.keys() == refused.seconds.keys()
    assert health == ["SERVING"] * len(stack.processes)
    assert recovered < 2.0
    await assert_healed(stack, depositors)


async def assert_healed(stack: Stack, depositors: Depositors) -> None:
    await depositors.assert_one_effect_each()
    report = await verify_stack(stack)
    assert report.clean, report.to_text()
