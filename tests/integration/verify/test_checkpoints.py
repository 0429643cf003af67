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
from tests.support.harness.verified_system import CHEQUE, HISTORY, System


async def test_a_checkpoint_beyond_the_end_of_the_stream(system: System) -> None:
    await system.redis.hset(CHEQUE.checkpoints, "3", f"{system.origin.epoch}/17")
    assert await system.find_problems() == [
        "projection ledger.cheque: checkpoint of partition 3 is 17, the stream ends at 16"
    ]


async def test_a_checkpoint_in_another_epoch(system: System) -> None:
    await system.redis.hset(CHEQUE.checkpoints, "3", "other/1")
    assert await system.find_problems(within=0.5) == [
        "projection ledger.cheque: 1 partitions have a checkpoint of another epoch than the stream"
    ]


@pytest.mark.parametrize("name", ["ready", "build", "checkpoints"])
async def test_a_projection_without_one_of_its_keys(system: System, name: str) -> None:
    await system.redis.delete(getattr(HISTORY, name))
    (problem,) = await system.find_problems(within=0.5)
    assert problem.startswith("projection ledger.cheque_history: ")


async def test_views_are_waited_for_while_a_projection_is_behind(system: System) -> None:
    stored: Any = await system.redis.dump(CHEQUE.key("c-2"))
    checkpoints: Any = await system.redis.hgetall(CHEQUE.checkpoints)
    await system.redis.hset(
        CHEQUE.checkpoints, mapping=dict.fromkeys(checkpoints, f"{system.origin.epoch}/0")
    )
    await system.redis.delete(CHEQUE.key("c-2"))
    verifying = asyncio.create_task(system.find_problems(within=60))
    done, _ = await asyncio.wait({verifying}, timeout=2)
    assert not done
    await system.redis.restore(CHEQUE.key("c-2"), 0, stored)
    assert await verifying == []


async def test_a_projection_that_is_cleared_during_its_check_is_checked_again(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, checks = sorted_sets.check, count(1)

    async def clear_at_first(redis: Any, spec: Any, *rest: Any) -> AsyncIterator[Problem]:
        first = spec.view == CHEQUE and next(checks) == 1
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
    await system.redis.set(CHEQUE.build, f"{system.origin.incarnation}/second/wiping")
    await system.redis.delete(CHEQUE.ready, *(CHEQUE.key(f"c-{number}") for number in range(1, 6)))
    await system.redis.zrem(key("index", "all"), await read_member(system, "c-2"))
    await system.redis.delete(key("counters", "account/a-1"))


async def finish_rebuild(system: System) -> None:
    for name, value in system.origin.keys.items():
        await system.redis.restore(name, 0, value, replace=True)
    await system.redis.set(CHEQUE.build, f"{system.origin.incarnation}/second")
