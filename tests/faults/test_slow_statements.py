"""PostgreSQL takes two seconds for each statement, so that a batch takes four."""

import asyncio
import secrets
from time import monotonic

import pytest

from devstack.stack import Stack
from operations.processes import COMMAND_SERVER, check_health
from tests.support.harness.depositors import Depositors
from tests.support.harness.invariants import verify_stack
from tests.support.harness.slow_postgres import slow_statements

pytestmark = pytest.mark.long
STATEMENT = 2.0
STATEMENTS = 2
"""A batch locks the streams, and writes."""
SLOW_PHASE = 9.0
EARLY = 1.0
"""Seconds within which a refusal comes on a busy machine; a command that waits takes longer."""


async def test_callers_are_answered_or_refused_early_while_statements_are_slow(stack: Stack) -> None:
    depositors = Depositors(stack, secrets.randbits(32))
    async with slow_statements(stack.settings.database_url) as statements:
        await depositors.run(None, 0.5)
        await statements.set(STATEMENT)
        await depositors.run(None, 0.5)  # the servers measure batches that are slow
        before, start = await statements.count(), monotonic()
        slow, late = await asyncio.gather(
            depositors.run(None, SLOW_PHASE), depositors.run(None, SLOW_PHASE, range(64, 72), pause=4.0)
        )
        count, lasted = await statements.count() - before, monotonic() - start
        health = [await check_health(process.address) for process in stack.processes]
        await statements.set(0.0)
        recovery = await depositors.measure_recovery()
        print(f"{slow.summarise()}; {count} statements in {lasted:.1f} s, {slow.answered / lasted:.1f}/s")
        print(f"between: {late.summarise()}; recovered in {recovery:.2f} s")
    refusals = [*slow.seconds.get("OVERLOADED", []), *late.seconds.get("OVERLOADED", [])]
    assert all(seconds < EARLY for seconds in refusals)
    assert slow.seconds.keys() | late.seconds.keys() <= {"OK", "OVERLOADED"}
    assert slow.answered
    most = len(stack.of(COMMAND_SERVER)) * (lasted / STATEMENT + 2)
    assert count <= most, "no statement is repeated"
    assert health == ["SERVING"] * len(stack.processes)
    assert recovery < STATEMENT
    await depositors.assert_one_effect_each()
    await depositors.close()
    report = await verify_stack(stack)
    assert report.clean, report.to_text()
