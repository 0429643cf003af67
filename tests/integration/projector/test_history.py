"""The history of an order: an entry for each event, written with the view."""

import random
from collections.abc import AsyncIterator
from datetime import UTC
from typing import Any

import pytest
from diptych.ordering.v1 import events_pb2 as v1
from diptych.ordering.v1.types_pb2 import OrderHistory, OrderHistoryEntry
from diptych.ordering.v2 import events_pb2 as v2
from redis.asyncio import Redis

from contracts import streams
from contracts.envelope import RecordedEvent
from projector.projections.ordering.order import ORDERS
from projector.projections.ordering.order_history import HISTORIES
from projector.retry_schedule import RetryPolicy
from tests.support.builders.expected_events import eventful
from tests.support.harness import projection_run
from tests.support.harness.projection_run import (
    EVERY,
    Events,
    Killed,
    confirmed,
    history,
    placed,
    projector,
    recorded,
)
from tests.support.harness.waiting import until

VIEW = HISTORIES.view


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def feed(nats_url: str) -> AsyncIterator[Events]:
    async with projection_run.publisher(nats_url) as events:
        await events.create()
        yield events


async def history_entries(redis: Redis, order_id: str = "o-1") -> dict[int, OrderHistoryEntry]:
    found: Any = await redis.hgetall(VIEW.history(order_id))
    return {int(version): OrderHistoryEntry.FromString(entry) for version, entry in found.items()}


async def version(redis: Redis, order_id: str = "o-1") -> int:
    return int(await redis.hget(VIEW.key(order_id), "version") or 0)


async def all_told(redis: Redis, lives: list[list[RecordedEvent]]) -> bool:
    return all([await version(redis, streams.aggregate_id(life[0].stream)) == len(life) for life in lives])


async def assert_told(redis: Redis, life: list[RecordedEvent]) -> None:
    """Assert that a history holds exactly these events, as they were recorded."""
    order_id = streams.aggregate_id(life[0].stream)
    found: Any = await redis.hget(VIEW.key(order_id), "data")
    assert OrderHistory.FromString(found) == OrderHistory(order_id=order_id, version=len(life))
    entries = await history_entries(redis, order_id)
    assert set(entries) == set(range(1, len(life) + 1))
    for event in life:
        entry = entries[event.version]
        assert (entry.version, entry.event_type) == (event.version, event.type)
        assert entry.record_time.ToDatetime(UTC) == event.recorded_at
        assert (entry.event.TypeName(), entry.event.value) == (event.type, event.data)


async def test_an_entry_tells_what_happened_when_by_whom_and_on_which_command(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    metadata = {
        "actor": "shop",
        "command": "diptych.ordering.v1.ConfirmOrder",
        "causation_id": "5a1f3c8e-0000-4000-8000-000000000002",
        "correlation_id": "5a1f3c8e-0000-4000-8000-000000000003",
        "on_behalf_of": "ada",
    }
    life = [recorded(1, placed("o-1"), actor="shop"), recorded(2, confirmed("o-1"), **metadata)]
    async with projector(redis_url, nats_url, partitions=EVERY, projection=HISTORIES):
        await feed.publish(*life)
        await until(lambda: all_told(redis, [life]))
    await assert_told(redis, life)
    entry = (await history_entries(redis))[2]
    happened = v1.OrderConfirmed()
    assert entry.event.Unpack(happened)
    assert happened == confirmed("o-1")
    assert (entry.actor, entry.on_behalf_of) == ("shop", "ada")
    assert entry.command == "diptych.ordering.v1.ConfirmOrder"
    assert entry.request_id == metadata["causation_id"]
    assert entry.correlation_id == metadata["correlation_id"]
    assert (await history_entries(redis))[1].on_behalf_of == ""


async def test_both_versions_of_an_event_are_told_as_they_were_recorded(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    old, new = [recorded(1, placed("o-1"))], [recorded(1, v2.OrderPlaced(order_id="o-2"))]
    async with projector(redis_url, nats_url, partitions=EVERY, projection=HISTORIES):
        await feed.publish(*old, *new)
        await until(lambda: all_told(redis, [old, new]))
    await assert_told(redis, old)
    await assert_told(redis, new)
    assert (await history_entries(redis, "o-1"))[1].event_type == "diptych.ordering.v1.OrderPlaced"
    assert (await history_entries(redis, "o-2"))[1].event_type == "diptych.ordering.v2.OrderPlaced"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["write", "advance"])
async def test_a_killed_projectors_histories_are_complete_in_the_end(
    redis_url: str, nats_url: str, redis: Redis, feed: Events, step: str, when: str
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    lives = [eventful(random.Random(seed + n), f"o-{n}") for n in range(20)]
    await feed.publish(*(event for life in lives for event in life))
    store = projection_run.dying(step, when)
    async with projector(redis_url, nats_url, partitions=EVERY, projection=HISTORIES, store=store) as dying:
        assert isinstance(await dying.died(), Killed)
    async with (
        projector(redis_url, nats_url, partitions=EVERY, projection=HISTORIES),
        projector(redis_url, nats_url, partitions=EVERY, projection=HISTORIES),
    ):
        await feed.publish(*lives[0], *reversed(lives[1]))
        await until(lambda: all_told(redis, lives))
    for life in lives:
        await assert_told(redis, life)


async def test_an_event_newer_than_the_code_parks_the_history_as_it_parks_the_order(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    life, other, slow = history("o-1"), history("o-2"), RetryPolicy(first_pause=60.0)
    known = life[1]
    newer = RecordedEvent(
        known.stream, 2, "diptych.ordering.v3.OrderConfirmed", known.data, known.recorded_at, 2, {}
    )
    async with (
        projector(redis_url, nats_url, partitions=EVERY, projection=HISTORIES, retries=slow),
        projector(redis_url, nats_url, partitions=EVERY, projection=ORDERS, retries=slow),
    ):
        await feed.publish(life[0], newer, life[2], *other)
        await until(lambda: all_told(redis, [other]))
        for view in (VIEW, ORDERS.view):
            await until(lambda: redis.hexists(view.parked, "o-1"))  # noqa: B023 - awaited in its turn
    await assert_told(redis, life[:1])
    await assert_told(redis, other)


async def test_a_rebuilt_history_holds_nothing_of_before(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    life = history("o-1")
    await feed.publish(*life)
    async with projector(redis_url, nats_url, partitions=EVERY, projection=HISTORIES):
        await until(lambda: is_there(redis, VIEW.ready))
        await redis.hset(VIEW.history("o-1"), "9", b"never was")
        await redis.hset(VIEW.history("ghost"), "1", b"never was")
        await redis.delete(VIEW.build)
        await until(lambda: is_there(redis, VIEW.history("ghost"), not_=True))
        await until(lambda: all_told(redis, [life]))
    await assert_told(redis, life)


async def is_there(redis: Redis, key: str, *, not_: bool = False) -> bool:
    return bool(await redis.exists(key)) is not not_
