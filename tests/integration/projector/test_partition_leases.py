"""Partition leases: projectors get equal shares, and every partition has a holder."""

import asyncio

import pytest
from redis.asyncio import Redis

from projector.leases import RedisLeases
from tests.support.harness.waiting import until

GROUP = "ledger"


async def renew(*members: RedisLeases, rounds: int = 3) -> list[int]:
    """Let all members renew several times; return the number of partitions of each."""
    for _ in range(rounds):
        for member in members:
            await member.renew()
    held = [partition for member in members for partition in member.partitions]
    assert sorted(held) == list(range(16)), "each partition has one holder"
    return [len(member.partitions) for member in members]


async def test_shares_are_equal_for_any_number_of_projectors(redis: Redis) -> None:
    first, second, third = (RedisLeases(redis, GROUP) for _ in range(3))
    assert await renew(first) == [16]
    assert await renew(first, second) == [8, 8]
    assert sorted(await renew(first, second, third)) == [4, 6, 6]
    await second.leave()
    assert await renew(first, third) == [8, 8]


async def test_partitions_change_hands_only_to_equalise_shares(redis: Redis) -> None:
    first, second = RedisLeases(redis, GROUP), RedisLeases(redis, GROUP)
    await renew(first)
    before = first.partitions
    await renew(first, second)
    assert first.partitions < before
    after = first.partitions
    await renew(first, second, rounds=5)
    assert first.partitions == after


async def test_a_pinned_partition_is_released_only_afterwards(redis: Redis) -> None:
    first, second = RedisLeases(redis, GROUP), RedisLeases(redis, GROUP)
    await first.renew()
    with first.pin() as partitions:
        assert partitions == frozenset(range(16))
        await second.renew()
        for _ in range(3):
            await first.renew()
            await second.renew()
        assert len(first.partitions) == 8, "no further batch may begin"
        assert second.partitions == frozenset()
    assert await renew(first, second) == [8, 8]


async def test_a_dead_projectors_leases_last_until_they_expire(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projector.leases.LEASE", 1.0)
    dead, living = RedisLeases(redis, GROUP), RedisLeases(redis, GROUP)
    await renew(dead, living)

    async def has_all() -> bool:
        await living.renew()
        return len(living.partitions) == 16

    assert not await has_all()
    await until(has_all)


async def test_a_frozen_projector_loses_its_partitions_to_others(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projector.leases.LEASE", 1.0)
    frozen, living = RedisLeases(redis, GROUP), RedisLeases(redis, GROUP)
    await renew(frozen)

    async def has_all() -> bool:
        await living.renew()
        return len(living.partitions) == 16

    await until(has_all)
    await frozen.renew()
    assert frozen.partitions == frozenset()
    assert await renew(frozen, living) == [8, 8]


async def test_projectors_of_other_contexts_do_not_share_the_partitions(redis: Redis) -> None:
    ledger, all_contexts = RedisLeases(redis, GROUP), RedisLeases(redis, f"{GROUP},toys")
    assert await renew(ledger) == [16]
    assert await renew(all_contexts) == [16]
    assert await renew(ledger) == [16]


async def test_a_projector_that_cannot_work_releases_its_share(redis: Redis) -> None:
    can_work = True
    first, second = RedisLeases(redis, GROUP, can_work=lambda: can_work), RedisLeases(redis, GROUP)
    keeping = [asyncio.create_task(first.keep()), asyncio.create_task(second.keep())]
    await until(lambda: len(first.partitions) == len(second.partitions) == 8)
    can_work = False
    await until(lambda: len(second.partitions) == 16)
    can_work = True
    await until(lambda: len(first.partitions) == len(second.partitions) == 8)
    await first.leave()
    await second.leave()
    assert await redis.keys("lease:*") == []
    assert await redis.zcard(f"projectors:{GROUP}") == 0
    await asyncio.wait(keeping, timeout=5)
    assert all(task.done() for task in keeping)
