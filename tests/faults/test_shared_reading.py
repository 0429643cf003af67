"""Projectors that read the stream once for all projections: handovers, rebuilds and freezes under load."""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from contracts import streams
from contracts.view_layout import View
from devstack.child import Child
from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import PROJECTOR
from operations.projections import rebuild, wait_until_ready
from tests.support.harness.invariants import assert_consistent
from tests.support.harness.traffic import Traffic
from tests.support.harness.waiting import until
from tests.support.ledger.installation import CONTEXT, installed
from tests.support.ledger.stubs import types

CHEQUE, HISTORY = View.of(types.Cheque), View.of(types.ChequeHistory)
VIEWS = (CHEQUE, HISTORY)
COMMAND_PAUSE = 0.3
FREEZES = 6
HASHES, INDEXES = ("view", "history", "counters", "event_counters"), ("index",)
"""The kinds of keys that a rebuild writes again as they were. A change feed has other numbers."""

pytestmark = pytest.mark.long


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Stack]:
    """A stack with two projectors."""
    with installed(CONTEXT):
        async with temporary_stack(tmp_path, contexts=CONTEXT, projectors=2) as stack:
            yield stack


@pytest.fixture
async def load(pair: Stack) -> AsyncIterator[Traffic]:
    traffic = Traffic(pair, secrets.randbits(32))
    yield traffic
    await traffic.close()


async def read_derived(redis: Redis) -> Mapping[bytes, Any]:
    """Return all views with everything derived from them, except revisions."""
    derived: dict[bytes, Any] = {}
    async for key in redis.scan_iter(count=1_000):
        kind = key.partition(b":")[0].decode()
        if kind in HASHES:
            derived[key] = {**await redis.hgetall(key), b"revision": None}
        elif kind in INDEXES:
            derived[key] = await redis.zrange(key, 0, -1)
    return derived


async def assert_equal_to_a_rebuild(stack: Stack, traffic: Traffic) -> None:
    """Assert that `verify` finds nothing, and that rebuilt views are the same."""
    await assert_consistent(stack, traffic.answers)
    async with Redis.from_url(stack.settings.redis_url) as redis:
        before = await read_derived(redis)
        for view in VIEWS:
            await rebuild(stack.settings, view, 60)
        assert await read_derived(redis) == before
        assert sum(key.startswith(b"view:") for key in before) > 100
    await assert_consistent(stack, traffic.answers)


async def have_holders(redis: Redis, count: int) -> bool:
    """Return whether all partitions are leased, by this many projectors."""
    holders = await redis.mget([f"lease:{CONTEXT}:{partition}" for partition in range(streams.PARTITIONS)])
    return None not in holders and len(set(holders)) == count


@pytest.mark.parametrize("way", ["stop", "kill", "freeze"])
async def test_a_rebuild_during_handovers_under_load_misses_no_event(
    pair: Stack, load: Traffic, way: str
) -> None:
    async with Redis.from_url(pair.settings.redis_url) as redis, load.flowing(COMMAND_PAUSE):
        await load.more(100)
        for projector, view in zip(pair.of(PROJECTOR), VIEWS, strict=True):
            await until(lambda: have_holders(redis, 2))
            await redis.delete(view.ready, view.build)  # begins a rebuild
            if way == "freeze":
                projector.child.freeze()
            else:
                await (projector.kill() if way == "kill" else projector.stop())
            await until(lambda: have_holders(redis, 1))
            await load.more(20)
            if way == "freeze":
                projector.child.thaw()
            else:
                await projector.start()
            await load.more(20)
            await wait_until_ready(pair.settings, [view], 60)
    await assert_equal_to_a_rebuild(pair, load)


async def test_projectors_nats_and_redis_freeze_in_random_order(pair: Stack, load: Traffic) -> None:
    choose = random.Random(seed := secrets.randbits(32))
    print(f"seed of the freezes {seed}")
    victims: list[Child] = [projector.child for projector in pair.of(PROJECTOR)]
    victims += [pair.servers["nats_url"].child, pair.servers["redis_url"].child]
    pids = [process.child.process.pid for process in pair.processes]
    async with load.flowing(COMMAND_PAUSE):
        await load.more(50)
        for _ in range(FREEZES):
            frozen = choose.sample(victims, choose.randint(1, 2))
            for victim in frozen:
                victim.freeze()
                await asyncio.sleep(choose.uniform(0.0, 2.5))  # the length of a freeze
            for victim in choose.sample(frozen, len(frozen)):
                victim.thaw()
                await asyncio.sleep(choose.uniform(0.0, 0.5))  # the time between two freezes
            await load.more(10)
        for process in pair.processes:
            await process.wait_serving()
    assert [process.child.process.pid for process in pair.processes] == pids
    await assert_equal_to_a_rebuild(pair, load)
