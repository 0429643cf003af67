"""Aggregates that are parked, or whose views are deleted, are replayed while the projector is killed."""

import asyncio
from time import monotonic, time
from typing import Any

import grpc
import msgspec
import pytest
from redis.asyncio import Redis

from contracts.view_layout import View
from devstack.stack import Stack
from operations.processes import PROJECTOR
from projector.records import Parked
from tests.support.harness import parked_aggregates
from tests.support.harness.invariants import assert_consistent
from tests.support.harness.rpc_failure import reason_of
from tests.support.harness.traffic import Traffic
from tests.support.harness.waiting import until
from tests.support.ledger.clerk import Clerk
from tests.support.ledger.stubs import queries, types

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
        await parked_aggregates.retry(stack.settings, CHEQUE, ())  # unless the projector was faster
        (projector,) = stack.of(PROJECTOR)
        await projector.kill()
        await projector.start()
        await traffic.more(30)
    await assert_consistent(stack, traffic.answers)
    async with Redis.from_url(stack.settings.redis_url) as redis:
        for cheque_id in ids:
            assert await has_version(redis, cheque_id, 2 * ENDORSEMENTS + 1)
    await clerk.close()


@pytest.mark.long
async def test_a_view_that_older_code_has_parked_says_so_and_heals_by_itself(
    stack: Stack, traffic: Traffic, clerk: Clerk
) -> None:
    parked, other = [await traffic.write("older") for _ in range(2)]
    await clerk.get(other.aggregate_id, other.consistency_token)
    (projector,) = stack.of(PROJECTOR)
    async with Redis.from_url(stack.settings.redis_url) as redis:
        await until(lambda: has_version(redis, parked.aggregate_id, 1))
        projector.child.freeze()  # the code that parks is another one, and older
        try:
            await park(redis, CHEQUE, parked.aggregate_id, seconds_ago=600)
            late = await clerk.endorse(parked.aggregate_id)
            await until(lambda: has_bound(clerk, parked.aggregate_id, 600, 660))
            await until(lambda: has_list_bound(clerk, 600, 660))
            await until(lambda: has_bound(clerk, other.aggregate_id, 0, 60))
            began = monotonic()
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await clerk.get(parked.aggregate_id, late.consistency_token)
            assert reason_of(error.value) == "VIEW_PARKED"
            assert monotonic() - began < 1.5  # nobody waits for it
        finally:
            projector.child.thaw()
        await until(lambda: has_version(redis, parked.aggregate_id, late.version))
    await until(lambda: has_bound(clerk, parked.aggregate_id, 0, 60))
    await until(lambda: has_list_bound(clerk, 0, 60))
    await assert_consistent(stack, traffic.answers)


async def has_bound(clerk: Clerk, cheque_id: str, low: float, high: float) -> bool:
    """Return whether a cheque's age is in a range, in seconds."""
    call = next(clerk._queries).GetCheque(
        queries.GetChequeRequest(cheque_id=cheque_id), metadata=clerk.bearer
    )
    return await has_age(call, low, high)


async def has_list_bound(clerk: Clerk, low: float, high: float) -> bool:
    """Return whether the age of a list is in a range; it does not show the parked view."""
    request = queries.ListChequesRequest(account_id="nobody")
    return await has_age(next(clerk._queries).ListCheques(request, metadata=clerk.bearer), low, high)


async def has_age(call: Any, low: float, high: float) -> bool:
    await call
    bound = dict(await call.trailing_metadata()).get("diptych-staleness-ms")
    return bound is not None and low <= int(bound) / 1000 < high


async def endorse(clerk: Clerk, ids: list[str]) -> None:
    for _ in range(ENDORSEMENTS):
        await asyncio.gather(*(clerk.endorse(cheque_id) for cheque_id in ids))


async def has_version(redis: Redis, cheque_id: str, version: int) -> bool:
    return int(await redis.hget(CHEQUE.key(cheque_id), "version") or 0) == version


async def park(redis: Redis, view: View, view_id: str, seconds_ago: float = 0.0) -> None:
    """Park an aggregate as a projector does after the last attempt."""
    stream = f"{view.source_streams[0]}.{view_id}"
    version = int(await redis.hget(view.key(view_id), "version") or 0) + 1
    now = int((time() - seconds_ago) * 1000)
    record: Any = msgspec.json.encode(
        Parked(stream, version, "planted", now, 6, None, "parked", stale_since=now, tried_by=("older",))
    )
    async with redis.pipeline(transaction=True) as pipe:
        pipe.hset(view.key(view_id), "parked", record)
        pipe.hincrby(view.key(view_id), "revision", 1)
        pipe.hset(view.parked, view_id, record)
        pipe.zadd(view.parked_since, {view_id: now})
        await pipe.execute()
