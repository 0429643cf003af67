"""A handler that takes much of the process's time: batches end early, and the process goes on."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic, perf_counter
from typing import Any

import pytest
from redis.asyncio import Redis

from contracts import streams
from projector import session
from projector.records import Update
from runtime.jetstream import Cursor
from tests.support.harness.fragile_accounts import (
    HOT,
    NEIGHBOURS,
    FragileAccounts,
    assert_accounts,
    is_complete,
    list_payments,
)
from tests.support.harness.projection_run import ALL_PARTITIONS, EventPublisher, projector
from tests.support.harness.waiting import until
from tests.support.ledger.projections import ACCOUNT

SLOW_EVENT = 0.05
"""Seconds of CPU."""


class SlowAccounts(FragileAccounts):
    """The handler of HOT's payments computes for SLOW_EVENT seconds."""

    def pay(self, account: Any, event: Any) -> None:
        end = perf_counter() + SLOW_EVENT
        while event.account_id == HOT and perf_counter() < end:
            pass
        super().pay(account, event)


async def measure_stall(holds: Callable[[], Awaitable[bool]]) -> float:
    """Wait until a condition holds; return the longest time for which the event loop stood still."""
    longest, stopping = 0.0, asyncio.Event()

    async def tick() -> None:
        nonlocal longest
        while not stopping.is_set():
            began = monotonic()
            await asyncio.sleep(0.005)  # what is measured
            longest = max(longest, monotonic() - began)

    ticking = asyncio.create_task(tick())
    await until(holds, 60)
    stopping.set()
    await ticking
    return longest


@pytest.mark.long
async def test_200_slow_events_in_one_batch_stop_no_process(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    hot, others = list_payments(HOT, 200), [list_payments(name, 10) for name in NEIGHBOURS]
    await publisher.publish(*hot, *(event for other in others for event in other))
    partitions = [streams.partition(HOT)]  # one reader, so that a batch takes all of its events
    async with projector(redis_url, nats_url, partitions=partitions, projection=SlowAccounts().projection):
        stall = await measure_stall(lambda: is_complete(redis, hot, *others))
    print(f"the event loop stood still for {stall:.2f} s at most")
    assert stall < 2.0
    await assert_accounts(redis, hot, *others)


async def test_a_batch_whose_handlers_are_slow_is_applied_in_parts(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MAX_FOLD_TIME", 0.0)  # every handler is slower than that
    hot, other = list_payments(HOT, 60), list_payments(NEIGHBOURS[0], 60)
    sizes = list[int]()
    await publisher.publish(*(event for pair in zip(hot, other, strict=True) for event in pair))
    async with projector(
        redis_url,
        nats_url,
        partitions=ALL_PARTITIONS,
        projection=FragileAccounts().projection,
        observe=lambda updates: sizes.extend(len(update.applied_events) for update in updates),
    ):
        await until(lambda: is_complete(redis, hot, other))

        async def has_passed_all() -> bool:
            checkpoint: Any = await redis.hget(ACCOUNT.checkpoints, str(streams.partition(HOT)))
            return checkpoint.endswith(b"/120") and bool(await redis.exists(ACCOUNT.ready))

        await until(has_passed_all)
    assert (max(sizes), sum(sizes)) == (1, 120)
    await assert_accounts(redis, hot, other)


async def test_a_projection_that_is_behind_the_others_is_applied_in_small_parts(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cursor, "reads_apart", lambda _: True)
    hot, sizes = list_payments(HOT, 200), list[int]()
    await publisher.publish(*hot)

    def observe(updates: Sequence[Update]) -> None:
        sizes.extend(len(update.applied_events) for update in updates)

    async with projector(
        redis_url,
        nats_url,
        partitions=ALL_PARTITIONS,
        projection=FragileAccounts().projection,
        observe=observe,
    ):
        await until(lambda: is_complete(redis, hot))
    assert sum(sizes) == len(hot)
    assert max(sizes) <= session.APART_SIZE
