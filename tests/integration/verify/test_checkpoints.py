"""Faults planted in checkpoints are named; a projection that is behind is waited for."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest

from operations.verify.checks import sorted_sets
from operations.verify.checks.sagas import NEVER_RAN
from operations.verify.model import Problem
from tests.support.harness.redis_faults import key, read_member
from tests.support.harness.verified_system import HISTORIES, ORDERS, System


async def test_a_checkpoint_beyond_the_end_of_the_stream(system: System) -> None:
    await system.redis.hset(ORDERS.checkpoints, "3", f"{system.origin.epoch}/19")
    assert await system.find_problems() == [
        "projection ordering.order: checkpoint of partition 3 is 19, the stream ends at 18"
    ]


async def test_a_checkpoint_in_another_epoch(system: System) -> None:
    await system.redis.hset(ORDERS.checkpoints, "3", "other/1")
    assert await system.find_problems(within=0.5) == [
        "projection ordering.order: 1 partitions have a checkpoint of another epoch than the stream"
    ]


@pytest.mark.parametrize("name", ["ready", "build", "checkpoints"])
async def test_a_projection_without_one_of_its_keys(system: System, name: str) -> None:
    await system.redis.delete(getattr(HISTORIES, name))
    (problem,) = await system.find_problems(within=0.5)
    assert problem.startswith("projection ordering.order_history: ")


async def test_views_are_waited_for_while_a_projection_is_behind(system: System) -> None:
    stored: Any = await system.redis.dump(ORDERS.key("o-2"))
    checkpoints: Any = await system.redis.hgetall(ORDERS.checkpoints)
    await system.redis.hset(
        ORDERS.checkpoints, mapping=dict.fromkeys(checkpoints, f"{system.origin.epoch}/0")
    )
    await system.redis.delete(ORDERS.key("o-2"))
    verifying = asyncio.create_task(system.find_problems(within=60))
    done, _ = await asyncio.wait({verifying}, timeout=2)
    assert not done
    await system.redis.restore(ORDERS.key("o-2"), 0, stored)
    assert await verifying == []


async def test_a_projection_that_is_cleared_during_its_check_is_checked_again(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, checks = sorted_sets.check, count(1)

    async def clear_at_first(redis: Any, spec: Any, *rest: Any) -> AsyncIterator[Problem]:
        first = spec.view == ORDERS and next(checks) == 1
        if first:
            await begin_rebuild(system)
        async for problem in check(redis, spec, *rest):
            yield problem
        if first:
            await finish_rebuild(system)

    monkeypatch.setattr(sorted_sets, "check", clear_at_first)
    report = await system.verify()
    assert (report.problems, report.notes, next(checks)) == ([], [NEVER_RAN], 3)


async def begin_rebuild(system: System) -> None:
    """Start another build as a projector would: delete all views and some of their derived keys."""
    await system.redis.set(ORDERS.build, f"{system.origin.incarnation}/second/wiping")
    await system.redis.delete(ORDERS.ready, *(ORDERS.key(f"o-{number}") for number in range(1, 6)))
    await system.redis.zrem(key("index", "all"), await read_member(system, "o-2"))
    await system.redis.delete(key("counters", "customer/ada"))


async def finish_rebuild(system: System) -> None:
    for name, value in system.origin.keys.items():
        await system.redis.restore(name, 0, value, replace=True)
    await system.redis.set(ORDERS.build, f"{system.origin.incarnation}/second")
