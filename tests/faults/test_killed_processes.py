"""Each process is killed at work, again and again."""

import asyncio
import random
import secrets

import pytest

from devstack.stack import Stack
from operations.processes import COMMAND_SERVER, PROJECTOR, QUERY_SERVER, RELAY, ProcessKind
from tests.support.harness.invariants import all_is_well
from tests.support.harness.traffic import Traffic

KILLS = 2


@pytest.mark.parametrize("kind", [COMMAND_SERVER, RELAY, PROJECTOR, QUERY_SERVER], ids=lambda kind: kind.name)
async def test_a_process_killed_under_load_loses_nothing_and_does_nothing_twice(
    stack: Stack, traffic: Traffic, kind: ProcessKind
) -> None:
    choose = random.Random(seed := secrets.randbits(32))
    print(f"seed of the kills {seed}")
    async with traffic.flowing():
        await traffic.more(50)
        for _ in range(KILLS):
            await asyncio.sleep(choose.uniform(0.0, 0.5))  # the moment of the kill, not a wait for anything
            victim = choose.choice(stack.of(kind))
            await victim.kill()
            await victim.start()
            await traffic.more(20)
    assert traffic.answers.repeated
    await all_is_well(stack, traffic.answers)
