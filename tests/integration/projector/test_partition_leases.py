"""Partitions shared among projectors by leases: everybody has a fair share, and all are worked on."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from projector.leases import RedisLeases
from tests.support.harness.waiting import until


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


async def renew(*members: RedisLeases, rounds: int = 3) -> list[int]:
    """Let all members renew, some times over; return how many partitions each has."""
    for _ in range(rounds):
        for member in members:
            await member.renew()
    held = [partition for member in members for partition in member.held]
    assert sorted(held) == list(range(16)), "each partition has one holder"
    return [len(member.held) for member in members]


async def test_shares_are_fair_however_many_projectors_there_are(redis: Redis) -> None:
    first, second, third = (RedisLeases(redis) for _ in range(3))
    assert await renew(first) == [16]
    assert await renew(first, second) == [8, 8]
    assert sorted(await renew(first, second, third)) == [4, 6, 6]
    await second.leave()
    assert await renew(first, third) == [8, 8]


async def test_partitions_stay_where_they_are_as_far_as_shares_allow(redis: Redis) -> None:
    first, second = RedisLeases(redis), RedisLeases(redis)
    await renew(first)
    before = first.held
    await renew(first, second)
    assert first.held < before
    kept = first.held
    await renew(first, second, rounds=5)
    assert first.held == kept


async def test_a_partition_that_is_worked_on_is_given_away_only_afterwards(redis: Redis) -> None:
    first, second = RedisLeases(redis), RedisLeases(redis)
    await first.renew()
    with first.pinned() as partitions:
        assert partitions == frozenset(range(16))
        await second.renew()
        for _ in range(3):
            await first.renew()
            await second.renew()
        assert len(first.held) == 8, "no further batch is begun"
        assert second.held == frozenset()
    assert await renew(first, second) == [8, 8]


async def test_what_a_dead_projector_held_is_free_after_a_lease_and_no_sooner(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projector.leases.LEASE", 1.0)
    dead, living = RedisLeases(redis), RedisLeases(redis)
    await renew(dead, living)

    async def has_all() -> bool:
        await living.renew()
        return len(living.held) == 16

    assert not await has_all()
    await until(has_all)


async def test_a_projector_that_was_frozen_gives_up_what_others_have_taken(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projector.leases.LEASE", 1.0)
    frozen, living = RedisLeases(redis), RedisLeases(redis)
    await renew(frozen)

    async def has_all() -> bool:
        await living.renew()
        return len(living.held) == 16

    await until(has_all)
    await frozen.renew()
    assert frozen.held == frozenset()
    assert await renew(frozen, living) == [8, 8]


async def test_a_projector_that_cannot_work_leaves_its_share_to_others(redis: Redis) -> None:
    able = True
    first, second = RedisLeases(redis, able=lambda: able), RedisLeases(redis)
    keeping = [asyncio.create_task(first.keep()), asyncio.create_task(second.keep())]
    await until(lambda: len(first.held) == len(second.held) == 8)
    able = False
    await until(lambda: len(second.held) == 16)
    able = True
    await until(lambda: len(first.held) == len(second.held) == 8)
    await first.leave()
    await second.leave()
    assert await redis.keys("lease:*") == []
    assert await redis.zcard("projectors") == 0
    await asyncio.wait(keeping, timeout=5)
    assert all(task.done() for task in keeping)
