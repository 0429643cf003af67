"""Damaged keys in Redis: everything else goes on, an operator's retry and a rebuild heal them."""

from typing import Any

import pytest
from redis.asyncio import Redis

from devstack.stack import Stack
from operations.projections import rebuild
from tests.support.harness.invariants import assert_consistent
from tests.support.harness.parked_aggregates import retry
from tests.support.harness.traffic import Traffic
from tests.support.harness.waiting import until
from tests.support.ledger.projections import CHEQUE, HISTORY


async def replace_key(redis: Redis, key: str) -> None:
    await redis.delete(key)
    await redis.rpush(key, "x")


@pytest.mark.long
async def test_damaged_views_stop_no_other_and_are_healed(stack: Stack, traffic: Traffic) -> None:
    async with traffic.flowing():
        await traffic.more(30)
        async with Redis.from_url(stack.settings.redis_url) as redis:
            keys = [
                key.decode() async for key in redis.scan_iter(match=f"{CHEQUE.key('').partition('{')[0]}*")
            ]
            ids = sorted(key.partition("{")[2].removesuffix("}") for key in keys)
            other_type, other_bytes, other_history = ids[:3]
            await replace_key(redis, CHEQUE.key(other_type))
            await redis.hset(CHEQUE.key(other_bytes), "data", b"\xff")
            await redis.hset(HISTORY.history(other_history), "1", b"\xff")
            await replace_key(redis, CHEQUE.index("all"))
            await traffic.more(30)
            assert await retry(stack.settings, CHEQUE, [other_type, other_bytes]) == 2
            assert await retry(stack.settings, HISTORY, [other_history]) == 1

            async def are_healed() -> bool:
                parked: Any = [await redis.hlen(view.parked) for view in (CHEQUE, HISTORY)]
                return bool(parked == [0, 0])

            await until(are_healed)
            data: Any = await redis.hget(CHEQUE.key(other_bytes), "data")
            assert CHEQUE.message.FromString(data).ByteSize()
            await rebuild(stack.settings, CHEQUE, 60)  # the index lacks what could not be written
    await assert_consistent(stack, traffic.answers)
