"""Counters that only grow hold each event once, whatever is repeated, done twice at once or cut off."""

import random
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from diptych.banking.v1 import events_pb2 as happened
from diptych.banking.v1 import types_pb2 as views
from redis.asyncio import Redis

from contracts import streams
from contracts.envelope import RecordedEvent
from projector.fold import fold
from projector.projections.banking.account_ledger import LEDGERS
from projector.records import Update
from projector.redis_store import RedisStore
from projector.retry_schedule import RetryPolicy
from tests.support.harness import projection_run
from tests.support.harness.projection_run import EVERY, Events, Killed, projector
from tests.support.harness.waiting import until
from tests.support.models import accounts

VIEW = LEDGERS.view


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def feed(nats_url: str) -> AsyncIterator[Events]:
    async with projection_run.publisher(nats_url) as events:
        await events.create()
        yield events


async def event_contributions(redis: Redis) -> dict[str, dict[str, int]]:
    """Return all counters by the day."""
    found: dict[str, dict[str, int]] = {}
    async for key in redis.scan_iter(match="event_counters:*", count=1_000):
        counters: Any = await redis.hgetall(key)
        day = key.decode().partition("{day/")[2].removesuffix("}")
        found[day] = {name.decode(): int(value) for name, value in counters.items()}
    return found


async def there(redis: Redis, key: str) -> bool:
    return bool(await redis.exists(key))


async def versions(redis: Redis, lives: list[list[RecordedEvent]]) -> list[int]:
    ids = [streams.aggregate_id(life[0].stream) for life in lives]
    return [int(await redis.hget(VIEW.key(id_), "version") or 0) for id_ in ids]


@pytest.mark.parametrize("_", range(3))
async def test_each_event_counts_once_however_projectors_are_killed_doubled_and_fed_twice(
    redis_url: str, nats_url: str, redis: Redis, feed: Events, _: int
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    lives = [accounts.at_random(chance, f"a-{n}", chance.randint(1, 9)).events for n in range(30)]
    story = [event for life in lives for event in life]
    chance.shuffle(story)
    story.sort(key=lambda event: event.version + chance.random())
    story += chance.sample(story, 20)
    cuts = sorted(chance.sample(range(len(story)), 3))
    for start, end in zip([0, *cuts], [*cuts, len(story)], strict=True):
        await feed.publish(*story[start:end])
        step, when = chance.choice(["load", "write"]), chance.choice(["before", "after"])
        store = projection_run.dying(step, when, chance.randint(1, 3))
        async with (
            projector(redis_url, nats_url, projection=LEDGERS, partitions=EVERY, store=store) as one,
            projector(redis_url, nats_url, projection=LEDGERS, partitions=EVERY, store=store) as two,
        ):
            ends = [max((e.version for e in life if e in story[:end]), default=0) for life in lives]

            async def died_or_done(ends: list[int] = ends) -> bool:
                runs = [each.tasks[0] for each in (one, two)]
                if any(run.done() and isinstance(run.exception(), Killed) for run in runs):
                    return True
                return await versions(redis, lives) == ends

            await until(died_or_done)
    async with projector(redis_url, nats_url, projection=LEDGERS, partitions=EVERY):

        async def done() -> bool:
            return await versions(redis, lives) == [len(life) for life in lives]

        await until(done)
    assert await event_contributions(redis) == accounts.sums(event for life in lives for event in life)


async def test_a_rebuild_counts_from_nothing(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    account = accounts.at_random(random.Random(7), "a-1", 20)
    await feed.publish(*account.events)

    async def done() -> bool:
        return await versions(redis, [account.events]) == [20] and bool(await redis.exists(VIEW.ready))

    async with projector(redis_url, nats_url, projection=LEDGERS, partitions=EVERY):
        await until(done)
        await redis.delete(VIEW.build)
        await redis.hset(VIEW.event_counters("day", "2020-01-01"), "count/KIND_SENT/EUR", 5)  # a leftover
        await until(lambda: there(redis, VIEW.build))
        await until(done)
    assert await event_contributions(redis) == accounts.sums(account.events)


async def test_an_account_that_is_parked_counts_as_far_as_it_was_read(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    account = accounts.Account("a-1")
    account.move(happened.MoneyDeposited, 700)
    good = list(account.events)
    absurd = happened.MoneyDeposited(account_id="a-1")
    absurd.amount.units = 2**62
    account._add(absurd, 0, 0)
    account.move(happened.MoneyWithdrawn, 100)
    async with projector(
        redis_url, nats_url, projection=LEDGERS, partitions=EVERY, retries=RetryPolicy(first_pause=60.0)
    ):
        await feed.publish(*account.events)
        await until(lambda: redis.hexists(VIEW.parked, "a-1"))
        await until(lambda: there(redis, VIEW.ready))
    assert await versions(redis, [good]) == [2]
    assert await event_contributions(redis) == accounts.sums(good)


async def test_a_tally_that_is_full_stops_nothing(redis: Redis) -> None:
    store = RedisStore(redis, VIEW)
    assert await store.read_build() is None
    await store.begin_build(str(uuid4()), "epoch")
    assert await store.read_build() is not None
    account = accounts.Account("a-1")
    account.move(happened.MoneyDeposited, 700)
    key, full = VIEW.event_counters("day", "2026-01-30"), 2**63 - 5
    await redis.hset(key, "units/KIND_DEPOSITED/EUR", str(full))
    before = (await store.load(["a-1"]))["a-1"]
    folded = fold(LEDGERS, before, account.events)
    update = Update(before, folded.record, folded.content, account.events, None, 0)
    assert await store.write([update]) == set()
    assert await store.write([update]) == {"a-1"}, "the second time, nothing is written"
    assert await event_contributions(redis) == {
        "2026-01-30": {
            "count/KIND_OPENED/EUR": 1,
            "count/KIND_DEPOSITED/EUR": 1,
            "units/KIND_DEPOSITED/EUR": full,
        }
    }
    kept: Any = await redis.hget(VIEW.key("a-1"), "data")
    assert views.AccountLedger.FromString(kept).version == 2
