"""Views are archived and restored again and again beside traffic and kills; nothing is lost or counted twice.

Here every view may be archived, not only those that ended: so many events find a tombstone. `diptych verify`
would report that, until all of them are restored.
"""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from contracts.view_layout import View
from devstack.stack import Stack
from operations.processes import PROJECTOR
from projector.redis_archive import RedisArchive
from tests.support.harness import parked_aggregates
from tests.support.harness.invariants import assert_consistent
from tests.support.harness.traffic import Traffic
from tests.support.harness.waiting import until
from tests.support.ledger.projections import CHEQUE, HISTORY

VIEWS = (CHEQUE, HISTORY)
KILLS = 2
NOW = 2**62


def pattern_of(view: View) -> str:
    return view.key("").replace("{}", "*")


def get_id(key: bytes) -> str:
    return key.decode().partition("{")[2].removesuffix("}")


class Archiver:
    """Archives the views of cheques as fast as it can."""

    def __init__(self, redis: Redis) -> None:
        self._stores = [RedisArchive(redis, view) for view in VIEWS]
        self._redis = redis
        self.count = 0
        self.stopped = False

    async def run(self) -> None:
        while not self.stopped:
            for store, view in zip(self._stores, VIEWS, strict=True):
                await store.read_build()
                async for key in self._redis.scan_iter(match=pattern_of(view), count=500):
                    await self._archive(store, get_id(key))

    async def _archive(self, store: RedisArchive, view_id: str) -> None:
        record = (await store.load([view_id]))[view_id]
        if record.version and record.parked is None and not record.archived:
            self.count += await store.archive([record], ("account",))

    async def list_archived(self, view: Any) -> list[str]:
        keys = [key async for key in self._redis.scan_iter(match=pattern_of(view), count=500)]
        return [get_id(key) for key in keys if await self._redis.hexists(key, "archived")]


@asynccontextmanager
async def archiving(redis: Redis) -> AsyncIterator[Archiver]:
    archiver = Archiver(redis)
    task = asyncio.create_task(archiver.run())
    yield archiver
    archiver.stopped = True
    await asyncio.wait_for(task, 20)


@pytest.mark.long
async def test_views_archived_beside_traffic_and_kills_are_restored_whole(
    stack: Stack, traffic: Traffic
) -> None:
    choose = random.Random(seed := secrets.randbits(32))
    print(f"seed of the kills {seed}")
    async with Redis.from_url(stack.settings.redis_url) as redis:
        async with archiving(redis) as archiver, traffic.flowing():
            await traffic.more(50)
            for _ in range(KILLS):
                await asyncio.sleep(choose.uniform(0.0, 0.5))  # the moment of the kill
                victim = choose.choice(stack.of(PROJECTOR))
                await victim.kill()
                await victim.start()
                await traffic.more(30)
        print(f"{archiver.count} times archived")
        assert archiver.count > 50
        for view in VIEWS:

            async def is_restored(view: Any = view) -> bool:
                return not await redis.hlen(view.parked)

            await until(is_restored, 40)
            if ids := await archiver.list_archived(view):
                assert await parked_aggregates.retry(stack.settings, view, ids) == len(ids)
            await until(is_restored, 40)
            assert int(await redis.get(view.archived) or 0) == 0
    await assert_consistent(stack, traffic.answers)
