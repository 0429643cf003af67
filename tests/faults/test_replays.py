"""Aggregates that are parked, or whose views are deleted, are replayed while the projector is killed."""

import asyncio
from time import time
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from contracts.view_layout import View
from devstack.stack import Stack
from operations import parked_aggregates
from operations.processes import PROJECTOR
from projector.records import Parked
from tests.support.harness.invariants import assert_consistent
from tests.support.harness.traffic import Traffic
from tests.support.harness.waiting import until
from tests.support.ledger.clerk import Clerk
from tests.support.ledger.stubs import types

CHEQUE, HISTORY = View.of(types.Cheque), View.of(types.ChequeHistory)
ENDORSEMENTS = 60
"""Of each cheque before and after it is parked."""


@pytest.mark.long
async def test_parked_aggregates_are_replayed_while_the_projector_is_killed(
    stack: Stack, traffic: Traffic
) -> None:
    clerk = Clerk(stack)
    async with traffic.flowing(), Redis.from_url(stack.settings.redis_url) as redis:
        ids = [(await traffic.write("parked")).aggregate_id for _ in range(4)]
        parked, missing = ids[:2], ids[2:]
        await endorse(clerk, ids)
        for cheque_id in ids:
            await until(lambda: has_version(redis, cheque_id, ENDORSEMENTS + 1))  # noqa: B023 - awaited here
        for cheque_id in parked:
            await park(redis, CHEQUE, cheque_id)
        for cheque_id in missing:
            await redis.delete(HISTORY.key(cheque_id))  # its next event follows a gap
        await endorse(clerk, ids)
        assert await redis.hlen(CHEQUE.parked) == len(parked)
        assert await parked_aggregates.retry(stack.settings, CHEQUE, ()) == len(parked)
        (projector,) = stack.of(PROJECTOR)
        await projector.kill()
        await projector.start()
        await traffic.more(30)
    await assert_consistent(stack, traffic.answers)
    async with Redis.from_url(stack.settings.redis_url) as redis:
        for cheque_id in ids:
            assert await has_version(redis, cheque_id, 2 * ENDORSEMENTS + 1)
    await clerk.close()


async def endorse(clerk: Clerk, ids: list[str]) -> None:
    for _ in range(ENDORSEMENTS):
        await asyncio.gather(*(clerk.endorse(cheque_id) for cheque_id in ids))


async def has_version(redis: Redis, cheque_id: str, version: int) -> bool:
    return int(await redis.hget(CHEQUE.key(cheque_id), "version") or 0) == version


async def park(redis: Redis, view: View, view_id: str) -> None:
    """Park an aggregate as a projector does after the last attempt."""
    stream = f"{view.source_streams[0]}.{view_id}"
    version = int(await redis.hget(view.key(view_id), "version") or 0) + 1
    record: Any = msgspec.json.encode(
        Parked(stream, version, "planted", int(time() * 1000), 6, None, "parked")
    )
    async with redis.pipeline(transaction=True) as pipe:
        pipe.hset(view.key(view_id), "parked", record)
        pipe.hincrby(view.key(view_id), "revision", 1)
        pipe.hset(view.parked, view_id, record)
        await pipe.execute()
