"""`diptych-staleness-ms` is never below the age of an answer, whichever part of the way stands still."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from devstack.stack import Stack
from operations.processes import PROJECTOR, RELAY
from tests.support.harness.invariants import assert_consistent
from tests.support.harness.staleness_checks import Observations, StalenessChecks
from tests.support.harness.traffic import Traffic
from tests.support.harness.waiting import until

SHORT, LONG = 1.5, 6.0
"""Seconds of an outage."""
MAX_EXCESS = 3_500
"""Milliseconds by which a bound may exceed the age under load, with room for a busy machine."""


@asynccontextmanager
async def outage(stack: Stack, part: str, kind: str) -> AsyncIterator[None]:
    """Freeze or kill a part for the time of the block."""
    processes = {"relay": RELAY, "projector": PROJECTOR}
    servers = {"nats": "nats_url", "redis": "redis_url", "postgres": "database_url"}
    parts = stack.of(processes[part]) if part in processes else [stack.servers[servers[part]]]
    for each in parts:
        if kind == "frozen":
            each.child.freeze()
        else:
            await (each.child.kill() if part in processes else each.kill())
    try:
        yield
    finally:
        for each in parts:
            if kind == "frozen":
                each.child.thaw()
            else:
                await each.start()


async def check(stack: Stack, traffic: Traffic, part: str, kind: str, seconds: float) -> None:
    checks = StalenessChecks(stack, traffic, secrets.randbits(32))
    async with checks.running():
        await until(lambda: has_bound(checks))
        checks.take()
        async with outage(stack, part, kind):
            await asyncio.sleep(seconds)  # the length of the outage
        during = checks.take()
        await until(lambda: is_current(checks), 30)
        after = checks.take()
    print(part, kind, "during", describe(during))
    print(part, kind, "after", describe(after))
    for observations in (during, after):
        assert not observations.too_small, observations.too_small[:5]
        assert not observations.went_back, observations.went_back[:5]
    await assert_consistent(stack, traffic.answers)


async def has_bound(checks: StalenessChecks) -> bool:
    return checks.observations.answers > 20 and not checks.take().without_bound


async def is_current(checks: StalenessChecks) -> bool:
    """Return whether the last answers are recent and say so."""
    seen = checks.observations
    if seen.answers < 50:
        return False
    recent = Observations()
    checks.observations = recent
    await asyncio.sleep(0.3)
    merge(seen, recent)
    checks.observations = seen
    return 0 < recent.largest_excess < MAX_EXCESS and recent.largest_age < 500 and not recent.without_bound


def merge(seen: Observations, more: Observations) -> None:
    seen.answers += more.answers
    seen.without_bound += more.without_bound
    seen.too_small += more.too_small
    seen.went_back += more.went_back
    seen.largest_age = max(seen.largest_age, more.largest_age)
    seen.largest_excess = max(seen.largest_excess, more.largest_excess)


def describe(seen: Observations) -> str:
    return (
        f"{seen.answers} answers, {seen.without_bound} without a bound, oldest {seen.largest_age:.0f} ms, "
        f"bound at most {seen.largest_excess:.0f} ms above, smallest bound of answers older than 1 s "
        f"{seen.smallest_bound_behind:.0f} ms, {len(seen.too_small)} too small, errors {seen.errors}"
    )


async def test_answers_say_how_old_they_are_while_the_relay_is_away(stack: Stack, traffic: Traffic) -> None:
    await check(stack, traffic, "relay", "frozen", SHORT)


@pytest.mark.long
@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ("relay", "killed"),
        ("nats", "frozen"),
        ("projector", "frozen"),
        ("redis", "killed"),
    ],
)
async def test_answers_say_how_old_they_are(stack: Stack, traffic: Traffic, part: str, kind: str) -> None:
    await check(stack, traffic, part, kind, LONG)
