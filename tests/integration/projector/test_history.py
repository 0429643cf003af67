"""The history of an order: one entry per event, written with the view."""

import random
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
from tests.support.builders.expected_events import random_order_events
from tests.support.harness import projection_run
from tests.support.harness.projection_run import (
    ALL_PARTITIONS,
    EventPublisher,
    Killed,
    confirmed,
    order_events,
    placed,
    projector,
    recorded,
)
from tests.support.harness.waiting import until

VIEW = HISTORIES.view


async def read_entries(redis: Redis, order_id: str = "o-1") -> dict[int, OrderHistoryEntry]:
    entries: Any = await redis.hgetall(VIEW.history(order_id))
    return {int(version): OrderHistoryEntry.FromString(entry) for version, entry in entries.items()}


async def read_version(redis: Redis, order_id: str = "o-1") -> int:
    return int(await redis.hget(VIEW.key(order_id), "version") or 0)


async def are_complete(redis: Redis, histories: list[list[RecordedEvent]]) -> bool:
    return all(
        [
            await read_version(redis, streams.aggregate_id(history[0].stream)) == len(history)
            for history in histories
        ]
    )


async def assert_history(redis: Redis, history: list[RecordedEvent]) -> None:
    """Assert that a history has exactly these events, as they were recorded."""
    order_id = streams.aggregate_id(history[0].stream)
    data: Any = await redis.hget(VIEW.key(order_id), "data")
    assert OrderHistory.FromString(data) == OrderHistory(order_id=order_id, version=len(history))
    entries = await read_entries(redis, order_id)
    assert set(entries) == set(range(1, len(history) + 1))
    for event in history:
        entry = entries[event.version]
        assert (entry.version, entry.event_type) == (event.version, event.type)
        assert entry.record_time.ToDatetime(UTC) == event.recorded_at
        assert (entry.event.TypeName(), entry.event.value) == (event.type, event.data)


async def test_an_entry_has_the_event_its_time_actor_and_command(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    metadata = {
        "actor": "shop",
        "command": "diptych.ordering.v1.ConfirmOrder",
        "causation_id": "5a1f3c8e-0000-4000-8000-000000000002",
        "correlation_id": "5a1f3c8e-0000-4000-8000-000000000003",
        "on_behalf_of": "ada",
    }
    history = [recorded(1, placed("o-1"), actor="shop"), recorded(2, confirmed("o-1"), **metadata)]
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, projection=HISTORIES):
        await publisher.publish(*history)
        await until(lambda: are_complete(redis, [history]))
    await assert_history(redis, history)
    entry = (await read_entries(redis))[2]
    event = v1.OrderConfirmed()
    assert entry.event.Unpack(event)
    assert event == confirmed("o-1")
    assert (entry.actor, entry.on_behalf_of) == ("shop", "ada")
    assert entry.command == "diptych.ordering.v1.ConfirmOrder"
    assert entry.request_id == metadata["causation_id"]
    assert entry.correlation_id == metadata["correlation_id"]
    assert (await read_entries(redis))[1].on_behalf_of == ""


async def test_both_versions_of_an_event_keep_their_recorded_form(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    old, new = [recorded(1, placed("o-1"))], [recorded(1, v2.OrderPlaced(order_id="o-2"))]
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, projection=HISTORIES):
        await publisher.publish(*old, *new)
        await until(lambda: are_complete(redis, [old, new]))
    await assert_history(redis, old)
    await assert_history(redis, new)
    assert (await read_entries(redis, "o-1"))[1].event_type == "diptych.ordering.v1.OrderPlaced"
    assert (await read_entries(redis, "o-2"))[1].event_type == "diptych.ordering.v2.OrderPlaced"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["write", "advance"])
async def test_the_histories_of_a_killed_projector_become_complete(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, step: str, when: str
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    histories = [random_order_events(random.Random(seed + n), f"o-{n}") for n in range(20)]
    await publisher.publish(*(event for history in histories for event in history))
    store = projection_run.dying_store(step, when)
    async with projector(
        redis_url, nats_url, partitions=ALL_PARTITIONS, projection=HISTORIES, store=store
    ) as dying:
        assert isinstance(await dying.wait_for_error(), Killed)
    async with (
        projector(redis_url, nats_url, partitions=ALL_PARTITIONS, projection=HISTORIES),
        projector(redis_url, nats_url, partitions=ALL_PARTITIONS, projection=HISTORIES),
    ):
        await publisher.publish(*histories[0], *reversed(histories[1]))
        await until(lambda: are_complete(redis, histories))
    for history in histories:
        await assert_history(redis, history)


async def test_an_unknown_event_parks_the_history_and_the_order(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    history, other, slow = order_events("o-1"), order_events("o-2"), RetryPolicy(first_pause=60.0)
    original = history[1]
    newer = RecordedEvent(
        original.stream, 2, "diptych.ordering.v3.OrderConfirmed", original.data, original.recorded_at, 2, {}
    )
    async with (
        projector(redis_url, nats_url, partitions=ALL_PARTITIONS, projection=HISTORIES, retries=slow),
        projector(redis_url, nats_url, partitions=ALL_PARTITIONS, projection=ORDERS, retries=slow),
    ):
        await publisher.publish(history[0], newer, history[2], *other)
        await until(lambda: are_complete(redis, [other]))
        for view in (VIEW, ORDERS.view):
            await until(lambda: redis.hexists(view.parked, "o-1"))  # noqa: B023 - awaited here
    await assert_history(redis, history[:1])
    await assert_history(redis, other)


async def test_a_rebuilt_history_has_no_earlier_entries(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    history = order_events("o-1")
    await publisher.publish(*history)
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, projection=HISTORIES):
        await until(lambda: exists(redis, VIEW.ready))
        await redis.hset(VIEW.history("o-1"), "9", b"no entry")
        await redis.hset(VIEW.history("ghost"), "1", b"no entry")
        await redis.delete(VIEW.build)
        await until(lambda: is_missing(redis, VIEW.history("ghost")))
        await until(lambda: are_complete(redis, [history]))
    await assert_history(redis, history)


async def exists(redis: Redis, key: str) -> bool:
    return bool(await redis.exists(key))


async def is_missing(redis: Redis, key: str) -> bool:
    return not await exists(redis, key)
