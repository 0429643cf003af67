"""Processes of each kind are killed under load."""

import asyncio
import random
import secrets

import pytest

from devstack.stack import Stack
from operations.processes import COMMAND_SERVER, PROJECTOR, QUERY_SERVER, RELAY, ProcessKind
from tests.support.harness.invariants import assert_consistent
from tests.support.harness.traffic import Traffic


@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "kind",
    [COMMAND_SERVER, RELAY, PROJECTOR, pytest.param(QUERY_SERVER, marks=pytest.mark.long)],
    ids=lambda kind: kind.name,
)
async def test_a_process_killed_under_load_loses_nothing_and_does_nothing_twice(
    stack: Stack, traffic: Traffic, kind: ProcessKind, kills: int
) -> None:
    choose = random.Random(seed := secrets.randbits(32))
    print(f"seed of the kills {seed}")
    async with traffic.flowing():
        await traffic.more(50)
        for _ in range(kills):
            await asyncio.sleep(choose.uniform(0.0, 0.5))  # the moment of the kill, not a wait for anything
            victim = choose.choice(stack.of(kind))
            await victim.kill()
            await victim.start()
            await traffic.more(20)
    assert traffic.answers.repeated
    await assert_consistent(stack, traffic.answers)
