"""Each fault that can be planted into a projection's progress is named; what is on its way is none."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest

from operations.verify.checks import sorted_sets
from operations.verify.checks.sagas import NEVER_RAN
from operations.verify.report import Problem
from tests.support.harness.redis_faults import key, member
from tests.support.harness.verified_system import HISTORIES, ORDERS, System


async def test_progress_beyond_the_end_of_the_stream(system: System) -> None:
    await system.redis.hset(ORDERS.checkpoints, "3", f"{system.origin.epoch}/19")
    assert await system.found() == ["projection ordering.order: partition 3 is at 19, the stream ends at 18"]


async def test_progress_in_another_epoch(system: System) -> None:
    await system.redis.hset(ORDERS.checkpoints, "3", "other/1")
    assert await system.found(within=0.5) == [
        "projection ordering.order: 1 partitions are in another epoch than the stream"
    ]


@pytest.mark.parametrize("name", ["present", "fill", "progress"])
async def test_a_projection_that_is_not_there(system: System, name: str) -> None:
    await system.redis.delete(getattr(HISTORIES, name))
    (found,) = await system.found(within=0.5)
    assert found.startswith("projection ordering.order_history: ")


async def test_views_are_waited_for_while_a_projection_is_behind(system: System) -> None:
    stored: Any = await system.redis.dump(ORDERS.key("o-2"))
    progress: Any = await system.redis.hgetall(ORDERS.checkpoints)
    await system.redis.hset(ORDERS.checkpoints, mapping=dict.fromkeys(progress, f"{system.origin.epoch}/0"))
    await system.redis.delete(ORDERS.key("o-2"))
    looking = asyncio.create_task(system.found(within=60))
    done, _ = await asyncio.wait({looking}, timeout=2)
    assert not done
    await system.redis.restore(ORDERS.key("o-2"), 0, stored)
    assert await looking == []


async def test_a_projection_that_is_wiped_while_it_is_looked_at_is_looked_at_again(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, looks = sorted_sets.check, count(1)

    async def wiped_at_first(redis: Any, reading: Any, *rest: Any) -> AsyncIterator[Problem]:
        first = reading.view == ORDERS and next(looks) == 1
        if first:
            await begin_wiping(system)
        async for problem in look(redis, reading, *rest):
            yield problem
        if first:
            await fill_again(system)

    monkeypatch.setattr(sorted_sets, "check", wiped_at_first)
    report = await system.verify()
    assert (report.problems, report.notes, next(looks)) == ([], [NEVER_RAN], 3)


async def begin_wiping(system: System) -> None:
    """Wipe what a projector that begins another filling wipes first: all views, some of what follows them."""
    await system.redis.set(ORDERS.build, f"{system.origin.incarnation}/second/wiping")
    await system.redis.delete(ORDERS.ready, *(ORDERS.key(f"o-{number}") for number in range(1, 6)))
    await system.redis.zrem(key("index", "all"), await member(system, "o-2"))
    await system.redis.delete(key("counters", "customer/ada"))


async def fill_again(system: System) -> None:
    for name, value in system.origin.keys.items():
        await system.redis.restore(name, 0, value, replace=True)
    await system.redis.set(ORDERS.build, f"{system.origin.incarnation}/second")
