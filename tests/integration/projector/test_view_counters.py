"""Sums over many views stay exact, whatever is repeated, reordered, done twice at once or cut off."""

import random
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from diptych.ordering.v1 import types_pb2 as views
from redis.asyncio import Redis

from contracts import streams
from contracts.envelope import RecordedEvent
from projector.fold import fold
from projector.projections.ordering.order import ORDERS
from projector.records import Update
from projector.redis_store import RedisStore
from projector.retry_schedule import RetryPolicy
from tests.support.builders import expected_events as expect
from tests.support.builders.expected_events import eventful
from tests.support.harness import projection_run
from tests.support.harness.projection_run import (
    EVERY,
    VIEW,
    Events,
    Killed,
    Running,
    cancelled,
    history,
    placed,
    projector,
    recorded,
)
from tests.support.harness.waiting import until

TOTAL = VIEW.counters("customer", "c-1")


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def feed(nats_url: str) -> AsyncIterator[Events]:
    async with projection_run.publisher(nats_url) as events:
        await events.create()
        yield events


@pytest.fixture
async def store(redis: Redis) -> RedisStore:
    store = RedisStore(redis, VIEW)
    assert await store.read_build() is None
    await store.begin_build(str(uuid4()), "epoch")
    assert await store.read_build() is not None
    return store


def lives_of(chance: random.Random, orders: int) -> list[list[RecordedEvent]]:
    return [eventful(chance, f"o-{n}") for n in range(orders)]


def mixed(chance: random.Random, lives: list[list[RecordedEvent]]) -> list[RecordedEvent]:
    """Return the events of all in some order, with some of them again, and some neighbours swapped."""
    queues = [list(life) for life in lives]
    out: list[RecordedEvent] = []
    while queues:
        queue = chance.choice(queues)
        out.append(queue.pop(0))
        if chance.random() < 0.2:
            out.append(chance.choice(out))
        if chance.random() < 0.2 and len(out) > 1:
            out[-1], out[-2] = out[-2], out[-1]
        queues = [queue for queue in queues if queue]
    return out


@pytest.mark.parametrize("_", range(3))
async def test_sums_are_those_of_the_views_however_projectors_are_killed_doubled_and_fed_twice(
    redis_url: str, nats_url: str, redis: Redis, feed: Events, _: int
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    lives = lives_of(chance, 40)
    story = mixed(chance, lives)
    cuts = sorted(chance.sample(range(len(story)), 4))
    for start, end in zip([0, *cuts], [*cuts, len(story)], strict=True):
        await feed.publish(*story[start:end])
        step, when = chance.choice(["load", "write"]), chance.choice(["before", "after"])
        store = projection_run.dying(step, when, chance.randint(1, 3))
        async with (
            projector(redis_url, nats_url, partitions=EVERY, store=store) as one,
            projector(redis_url, nats_url, partitions=EVERY, store=store) as two,
        ):
            await until(lambda: died_or_done(redis, [one, two], story[:end]))  # noqa: B023 - awaited here
        await feed.publish(*chance.sample(story[:end], min(end, 5)))
    async with (
        projector(redis_url, nats_url, partitions=EVERY),
        projector(redis_url, nats_url, partitions=EVERY),
    ):
        await until(lambda: projection_run.all_written(redis, lives))
    await projection_run.assert_views(redis, lives)


async def died_or_done(redis: Redis, running: list[Running], published: list[RecordedEvent]) -> bool:
    """Return whether a projector has died, or the views are as far as the events without a gap lead."""
    if any(isinstance(each.tasks[0].exception(), Killed) for each in running if each.tasks[0].done()):
        return True
    reached = dict.fromkeys((streams.aggregate_id(event.stream) for event in published), 0)
    for event in sorted(published, key=lambda event: event.version):
        order_id = streams.aggregate_id(event.stream)
        reached[order_id] = max(reached[order_id], min(event.version, reached[order_id] + 1))
    return all([await projection_run.version(redis, each) >= version for each, version in reached.items()])


async def write(store: RedisStore, *lives: list[RecordedEvent]) -> set[str]:
    """Write what becomes of views by these events, in one call; return the ids of those that were lost."""
    return await store.write([await update(store, life) for life in lives])


async def update(store: RedisStore, life: list[RecordedEvent]) -> Update:
    """Return the write of a view that all these events lead to."""
    order_id = streams.aggregate_id(life[0].stream)
    before = (await store.load([order_id]))[order_id]
    folded = fold(ORDERS, before, life)
    assert folded.error is None
    return Update(before, folded.record, folded.content, life, None, 0)


async def test_a_write_that_comes_twice_or_late_adds_nothing(store: RedisStore, redis: Redis) -> None:
    life = history("o-1")
    late = []
    for version in (1, 2, 3):
        late.append(await update(store, life[:version]))
        assert await store.write(late[-1:]) == set()
        for each in late:
            assert await store.write([each]) == {"o-1"}
            await projection_run.assert_views(redis, [life[:version]])


async def test_a_view_that_skips_versions_takes_back_what_it_added_last(
    store: RedisStore, redis: Redis
) -> None:
    life = history("o-1")
    await write(store, life[:1])
    await write(store, life[:3])
    await projection_run.assert_views(redis, [life])


async def test_counters_of_zero_are_not_there(store: RedisStore, redis: Redis) -> None:
    life = history("o-1")
    await write(store, life[:1])
    assert set((await projection_run.totals(redis))[TOTAL]) == {
        "orders/STATE_PLACED",
        "units/STATE_PLACED/EUR",
        "nanos/STATE_PLACED/EUR",
    }
    await write(store, life[:2])
    assert set((await projection_run.totals(redis))[TOTAL]) == {
        "orders/STATE_CONFIRMED",
        "units/STATE_CONFIRMED/EUR",
        "nanos/STATE_CONFIRMED/EUR",
    }


async def test_sums_beyond_what_a_double_holds_are_exact(store: RedisStore, redis: Redis) -> None:
    near = 2**62 + 1
    await redis.hset(TOTAL, "units/STATE_PLACED/EUR", str(near))
    await write(store, history("o-1")[:1])
    assert (await projection_run.totals(redis))[TOTAL]["units/STATE_PLACED/EUR"] == near + 12
    await write(store, history("o-1")[:2])
    assert (await projection_run.totals(redis))[TOTAL]["units/STATE_PLACED/EUR"] == near


async def test_a_counter_that_is_full_stops_nothing_and_what_it_lacks_is_known(
    store: RedisStore, redis: Redis
) -> None:
    full = 2**63 - 5
    one, two = history("o-1"), history("o-2", "c-2")
    await redis.hset(TOTAL, "units/STATE_PLACED/EUR", str(full))
    assert await write(store, one[:1], two) == set()
    assert (await projection_run.totals(redis))[TOTAL] == {
        "orders/STATE_PLACED": 1,
        "units/STATE_PLACED/EUR": full,
        "nanos/STATE_PLACED/EUR": 340_000_000,
    }
    assert await projection_run.version(redis, "o-1") == 1
    assert await projection_run.version(redis, "o-2") == 3
    hash_ = await projection_run.view(redis, "o-1")
    lacking = [amount for amount in both(hash_["contributions"]) if amount not in both(hash_["counted"])]
    assert lacking == [[TOTAL, "units/STATE_PLACED/EUR", "12"]]
    await write(store, one[:2])  # takes back what was added, and no more
    assert (await projection_run.totals(redis))[TOTAL] == {
        "units/STATE_PLACED/EUR": full,
        "orders/STATE_CONFIRMED": 1,
        "units/STATE_CONFIRMED/EUR": 12,
        "nanos/STATE_CONFIRMED/EUR": 340_000_000,
    }


def both(contributions: bytes) -> list[Any]:
    found: list[Any] = msgspec.json.decode(contributions)
    return found


async def test_nothing_but_full_counters_leaves_nothing_added(store: RedisStore, redis: Redis) -> None:
    counters = ("orders/STATE_PLACED", "units/STATE_PLACED/EUR", "nanos/STATE_PLACED/EUR")
    await redis.hset(TOTAL, mapping=dict.fromkeys(counters, str(2**63 - 1)))
    await write(store, history("o-1")[:1])
    assert (await projection_run.view(redis, "o-1"))["counted"] == b"[]"


async def test_a_total_that_no_order_can_have_parks_its_own_order_and_no_other(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    absurd, two = placed("o-1"), history("o-2")
    absurd.total.units = 2**63 - 1
    slow = RetryPolicy(first_pause=60.0)
    async with projector(redis_url, nats_url, partitions=EVERY, retries=slow):
        await feed.publish(recorded(1, absurd), recorded(2, cancelled("o-1")), *two)
        await until(lambda: projection_run.all_written(redis, [two]))
        await until(lambda: redis.hexists(VIEW.parked, "o-1"))
        await until(lambda: projection_run.present(redis))
    assert await projection_run.totals(redis) == expect.sums([expect.order(two)])
    assert b"too much" in (await projection_run.view(redis, "o-1"))["parked"]
    assert views.Order.FromString((await projection_run.view(redis, "o-2"))["data"]) == expect.order(two)
