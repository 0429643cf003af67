import random
from collections.abc import AsyncIterator

import pytest
from diptych.ordering.v1 import types_pb2 as views
from redis.asyncio import Redis

from contracts import streams
from projector.records import Update
from tests.support.builders import expected_events as expect
from tests.support.harness import projection_run
from tests.support.harness.projection_run import (
    EVERY,
    Events,
    cancelled,
    confirmed,
    history,
    placed,
    projector,
    recorded,
)
from tests.support.harness.waiting import until


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def feed(nats_url: str) -> AsyncIterator[Events]:
    async with projection_run.publisher(nats_url) as events:
        await events.create()
        yield events


async def test_an_orders_view_follows_its_events(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    life = history("o-1")
    async with projector(redis_url, nats_url, partitions=EVERY):
        for n in range(1, 4):
            await feed.publish(life[n - 1])
            await until(lambda: projection_run.all_written(redis, [life[:n]]))  # noqa: B023 - awaited in its turn
            await projection_run.assert_views(redis, [life[:n]])
    found = await projection_run.view(redis, "o-1")
    assert found["state"] == b"STATE_CANCELLED"
    assert found["total"] == b"12.34 EUR"
    assert found["place_time"] == b"2026-01-02T03:00:05+00:00"


async def test_a_backlog_of_many_orders_becomes_what_an_independent_fold_makes_of_it(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    chance = random.Random(7)
    lives = [history(f"o-{n}", f"c-{n % 5}", n % 60)[: chance.randint(1, 3)] for n in range(700)]
    queues = [list(life) for life in lives]
    mixed = []
    while queues:
        queue = chance.choice(queues)
        mixed.append(queue.pop(0))
        if not queue:
            queues.remove(queue)
    await feed.publish(*mixed)
    async with projector(redis_url, nats_url, partitions=EVERY):
        await until(lambda: projection_run.all_written(redis, lives))
    await projection_run.assert_views(redis, lives)


async def test_duplicates_change_nothing(redis_url: str, nats_url: str, redis: Redis, feed: Events) -> None:
    one, two = history("o-1"), history("o-2")
    writes: list[Update] = []
    async with projector(redis_url, nats_url, partitions=EVERY, observe=writes.extend):
        await feed.publish(*one, one[0], one[2], one[1])
        await until(lambda: projection_run.all_written(redis, [one]))
        before = await projection_run.view(redis, "o-1")
        await feed.publish(*one, *two)
        await until(lambda: projection_run.all_written(redis, [two]))
    assert await projection_run.view(redis, "o-1") == before
    assert [event.id for update in writes for event in update.applied] == [e.id for e in (*one, *two)]
    await projection_run.assert_views(redis, [one, two])


async def test_events_that_come_out_of_order_within_a_batch_are_applied_in_order(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    one = history("o-1")
    await feed.publish(one[2], one[0], one[1])
    async with projector(redis_url, nats_url, partitions=EVERY):
        await until(lambda: projection_run.all_written(redis, [one]))
    await projection_run.assert_views(redis, [one])


async def test_an_event_that_overtook_another_publishers_waits_for_it(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    one, two = history("o-1"), history("o-2")
    async with projector(redis_url, nats_url, partitions=EVERY):
        await feed.publish(one[0], one[2], *two)
        await until(lambda: projection_run.all_written(redis, [two]))
        async with projection_run.publisher(nats_url) as second:
            await second.publish(one[1])
        await until(lambda: projection_run.all_written(redis, [one]))
        await until(lambda: nothing_is_parked(redis))
    await projection_run.assert_views(redis, [one, two])


async def test_a_gap_is_filled_from_the_aggregates_own_subject(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    one, two = history("o-1"), history("o-2")
    async with projector(redis_url, nats_url, partitions=EVERY):
        await feed.publish(*one[:2], *two[:1])
        await until(lambda: projection_run.all_written(redis, [one[:2], two[:1]]))
    await redis.delete("view:ordering.order:2:{o-1}")  # somebody's mistake: progress is far behind it
    writes: list[Update] = []
    async with projector(redis_url, nats_url, partitions=EVERY, observe=writes.extend):
        await feed.publish(one[2], two[1])
        await until(lambda: projection_run.all_written(redis, [one, two[:2]]))
    assert all(update.after.parked is None for update in writes)
    found = await projection_run.view(redis, "o-1")
    assert views.Order.FromString(found["data"]) == expect.order(one)


async def test_events_of_other_aggregates_are_not_heard(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    one, two = history("o-1"), history("o-2")
    await feed.publish(one[0])
    await feed.connection.js.publish("diptych.events.3.ordering.other.x-1", b"nothing that we know")
    await feed.connection.js.publish("diptych.events.3.inventory.item.x-1", b"nothing that we know")
    async with projector(redis_url, nats_url, partitions=EVERY):
        await feed.publish(*two)
        await until(lambda: projection_run.all_written(redis, [one[:1], two]))
        await until(lambda: projection_run.present(redis))
    await projection_run.assert_views(redis, [one[:1], two])


async def test_a_message_that_no_relay_published_is_passed_over(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    one = history("o-1")
    await feed.publish(one[0])
    await feed.connection.js.publish(streams.subject("ordering.order.o-1"), b"no headers")
    await feed.publish(one[1])
    async with projector(redis_url, nats_url, partitions=EVERY):
        await until(lambda: projection_run.all_written(redis, [one[:2]]))
    await projection_run.assert_views(redis, [one[:2]])


async def test_index_entries_move_with_the_state_and_none_is_left_behind(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    first = [recorded(1, placed("o-1")), recorded(2, cancelled("o-1"))]
    second = [recorded(1, placed("o-2", minute=1)), recorded(2, confirmed("o-2"))]
    async with projector(redis_url, nats_url, partitions=EVERY):
        await feed.publish(first[0], second[0])
        await until(lambda: projection_run.all_written(redis, [first[:1], second[:1]]))
        await feed.publish(first[1], second[1])
        await until(lambda: projection_run.all_written(redis, [first, second]))
    found = await projection_run.indexes(redis)
    assert sorted(found) == [
        "index:ordering.order:2:{all}",
        "index:ordering.order:2:{customer/c-1}",
        "index:ordering.order:2:{customer_state/c-1/STATE_CANCELLED}",
        "index:ordering.order:2:{customer_state/c-1/STATE_CONFIRMED}",
        "index:ordering.order:2:{state/STATE_CANCELLED}",
        "index:ordering.order:2:{state/STATE_CONFIRMED}",
    ]
    oldest_first = await projection_run.members(redis, "index:ordering.order:2:{customer/c-1}")
    assert [member.partition(":")[2] for member in oldest_first] == ["o-1", "o-2"]


async def nothing_is_parked(redis: Redis) -> bool:
    return not await redis.exists("parked:ordering.order:2")
