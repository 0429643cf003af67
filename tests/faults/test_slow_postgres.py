"""PostgreSQL takes two seconds for each commit: callers are refused early, and nothing is doubled or lost."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from time import monotonic

import pytest

from devstack.stack import Stack
from operations.processes import COMMAND_SERVER, check_health
from tests.support.harness.depositors import CALLERS, Depositors
from tests.support.harness.invariants import verify_stack
from tests.support.harness.slow_postgres import Delay, slow_commits

pytestmark = pytest.mark.long
COMMIT = 2.0
SLOW_PHASE = 6.0
"""Seconds of each load on the slow database."""
STRAGGLERS = range(CALLERS, CALLERS + 8)
"""Callers that arrive at any time of a commit; those that a commit answers join the next one together."""
OUTCOMES = {"OK", "OVERLOADED", "OUTCOME_PENDING", "WRITE_MODEL_LOCKED", "DEADLINE_PASSED"}
EARLY = 0.5
"""Seconds within which a refusal comes on a busy machine; a command that waits takes longer."""


@pytest.fixture
async def commits(stack: Stack) -> AsyncIterator[Delay]:
    async with slow_commits(stack.settings.database_url) as commits:
        yield commits


@pytest.fixture
async def depositors(stack: Stack) -> AsyncIterator[Depositors]:
    depositors = Depositors(stack, secrets.randbits(32))
    yield depositors
    await depositors.close()


@pytest.mark.parametrize("limit", [None, 2.0, 1.0], ids=["no deadline", "2 s", "1 s"])
async def test_callers_are_answered_or_refused_early_while_commits_are_slow(
    stack: Stack, commits: Delay, depositors: Depositors, limit: float | None
) -> None:
    await depositors.run(limit, 1.0)
    await commits.set(COMMIT)
    await depositors.run(limit, 2 * COMMIT)  # the servers measure commits that are slow
    before, start = await commits.count(), monotonic()
    slow, late = await asyncio.gather(
        depositors.run(limit, SLOW_PHASE),
        depositors.run(limit, SLOW_PHASE, STRAGGLERS, pause=COMMIT),
    )
    count, lasted = await commits.count() - before, monotonic() - start
    health = [await check_health(process.address) for process in stack.processes]
    await commits.set(0.0)
    recovery = await depositors.measure_recovery()
    goodput = slow.answered / lasted
    print(f"deadline {limit}: {slow.summarise()}; {count} commits in {lasted:.1f} s, {goodput:.1f} answers/s")
    print(f"between: {late.summarise()}; recovered in {recovery:.2f} s")
    refusals = [*slow.seconds.get("OVERLOADED", []), *late.seconds.get("OVERLOADED", [])]
    assert all(seconds < EARLY for seconds in refusals)
    assert refusals or limit != 1.0
    hints = [hint for log in (slow, late) for each in log.hints.values() for hint in each]
    assert all(hint <= COMMIT for hint in hints)
    assert count <= len(stack.of(COMMAND_SERVER)) * (lasted / COMMIT + 1), "a commit at a time at each server"
    assert slow.seconds.keys() | late.seconds.keys() <= OUTCOMES
    assert goodput > CALLERS / COMMIT / 4
    assert health == ["SERVING"] * len(stack.processes)
    assert recovery < COMMIT / 2
    await depositors.assert_one_effect_each()
    report = await verify_stack(stack)
    assert report.clean, report.to_text()
