"""Events that cannot be applied: they stop their own aggregate, are tried again, and nothing else suffers."""

from collections.abc import AsyncIterator
from time import time
from typing import Any

import msgspec
import pytest
from diptych.ordering.v1 import events_pb2 as events
from diptych.ordering.v1 import types_pb2 as views
from diptych.ordering.v2 import events_pb2 as v2
from redis.asyncio import Redis

from contracts import streams
from contracts.envelope import RecordedEvent
from projector.feed import JetStreamFeed
from projector.projection import Projection
from projector.projections.ordering.order import ORDERS, change_feeds, contributions, entries
from projector.records import Parked, Update
from projector.redis_store import RedisStore
from projector.retry_schedule import RetryPolicy
from projector.writer import Writer
from tests.support.builders import expected_events as expect
from tests.support.harness import projection_run
from tests.support.harness.projection_run import (
    EVERY,
    VIEW,
    Events,
    Killed,
    cancelled,
    history,
    projector,
    recorded,
)
from tests.support.harness.waiting import until

SLOW = RetryPolicy(first_pause=60.0)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def feed(nats_url: str) -> AsyncIterator[Events]:
    async with projection_run.publisher(nats_url) as events:
        await events.create()
        yield events


class Fragile:
    """A projection of orders whose handler of confirmations fails as long as `broken` is set."""

    def __init__(self) -> None:
        self.broken = True
        self.projection = Projection[views.Order](
            VIEW, events=(events, v2), indexes=entries, contributions=contributions, change_feeds=change_feeds
        )
        for event, handler in ORDERS._handlers.values():
            fragile: Any = self.confirmed if event is events.OrderConfirmed else handler
            self.projection.on(event)(fragile)

    def confirmed(self, order: views.Order, event: events.OrderConfirmed) -> None:
        order.state = views.Order.STATE_CONFIRMED
        if self.broken:
            raise RuntimeError("out of paper")
        order.confirm_time.CopyFrom(event.confirmed_at)


def unreadable(order_id: str, version: int) -> RecordedEvent:
    event = recorded(version, cancelled(order_id))
    return RecordedEvent(event.stream, version, event.type, b"\xff\xff", event.recorded_at, version, {})


async def listed(redis: Redis) -> dict[str, Parked]:
    found: Any = await redis.hgetall("parked:ordering.order:2")
    return {view_id.decode(): msgspec.json.decode(record, type=Parked) for view_id, record in found.items()}


async def is_listed(redis: Redis, *order_ids: str) -> bool:
    return set(await listed(redis)) == set(order_ids)


async def test_an_event_that_cannot_be_read_parks_its_own_aggregate_and_no_other(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    one, two = history("o-1"), history("o-2")
    began = int(time() * 1000)
    updates: list[Update] = []
    async with projector(redis_url, nats_url, partitions=EVERY, retries=SLOW, observe=updates.extend):
        await feed.publish(one[0], two[0], unreadable("o-1", 2), two[1], one[2], two[2])
        await until(lambda: projection_run.all_written(redis, [one[:1], two]))
        await until(lambda: is_listed(redis, "o-1"))
        await until(lambda: projection_run.present(redis))
    found = await projection_run.view(redis, "o-1")
    assert views.Order.FromString(found["data"]) == expect.order(one[:1])
    parked = (await listed(redis))["o-1"]
    assert msgspec.json.decode(found["parked"], type=Parked) == parked
    assert (parked.stream, parked.version, parked.attempts) == ("ordering.order.o-1", 2, 1)
    assert (parked.state, "DecodeError" in parked.error) == ("retrying", True)
    assert began <= parked.since <= int(time() * 1000)
    assert parked.next_attempt is not None
    assert 30_000 <= parked.next_attempt - parked.since <= 90_000
    assert [update.failed and update.failed.version for update in updates if update.after.parked] == [2]


async def test_the_first_event_of_an_aggregate_may_be_the_bad_one(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    two = history("o-2")
    async with projector(redis_url, nats_url, partitions=EVERY, retries=SLOW):
        await feed.publish(unreadable("o-1", 1), *two)
        await until(lambda: projection_run.all_written(redis, [two]))
        await until(lambda: is_listed(redis, "o-1"))
    found = await projection_run.view(redis, "o-1")
    assert (found["version"], "data" in found, "entries" in found) == (b"0", False, False)


async def test_a_gap_that_nothing_fills_parks_the_aggregate(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    one, two = history("o-1"), history("o-2")
    async with projector(redis_url, nats_url, partitions=EVERY, retries=SLOW):
        await feed.publish(one[0], one[2], *two)
        await until(lambda: projection_run.all_written(redis, [one[:1], two]))
        await until(lambda: is_listed(redis, "o-1"))
    parked = (await listed(redis))["o-1"]
    assert (parked.version, parked.error) == (2, "EventsMissing: event 2 is missing, event 3 is there")


async def test_an_aggregate_goes_on_by_itself_when_the_cause_is_gone_with_all_that_came_meanwhile(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    one, two, fragile = history("o-1"), history("o-2"), Fragile()
    patient = RetryPolicy(attempts=100, first_pause=0.02)
    async with projector(
        redis_url, nats_url, partitions=EVERY, projection=fragile.projection, retries=patient
    ):
        await feed.publish(*one[:2], two[0])
        await until(lambda: is_listed(redis, "o-1"))
        await feed.publish(one[2])
        await until(lambda: attempts(redis, "o-1", at_least=3))
        assert await projection_run.version(redis, "o-1") == 1
        fragile.broken = False
        await until(lambda: projection_run.all_written(redis, [one, two[:1]]))
        await until(lambda: is_listed(redis))
    await projection_run.assert_views(redis, [one, two[:1]])


async def test_after_the_last_attempt_an_aggregate_stays_parked_until_an_operator_replays_it(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    one, two, fragile = history("o-1"), history("o-2"), Fragile()
    quick = RetryPolicy(attempts=3, first_pause=0.02)
    async with projector(redis_url, nats_url, partitions=EVERY, projection=fragile.projection, retries=quick):
        await feed.publish(*one[:2])
        await until(lambda: has_given_up(redis, "o-1"))
        assert (await listed(redis))["o-1"].attempts == 3
        fragile.broken = False
        await feed.publish(one[2], *two)
        await until(lambda: projection_run.all_written(redis, [two]))
        assert await projection_run.version(redis, "o-1") == 1
        feed_of_orders = JetStreamFeed(feed.connection, VIEW.source_streams)
        store = RedisStore(redis, VIEW)
        assert await store.read_build()
        operator = Writer(fragile.projection, store, feed_of_orders, quick, lambda _: None)
        await operator.replay("o-1", "ordering.order.o-1")
        await projection_run.assert_views(redis, [one, two])
        assert await is_listed(redis)


async def test_a_projector_notices_that_somebody_else_has_unparked_an_aggregate(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    one, fragile = history("o-1"), Fragile()
    async with projector(redis_url, nats_url, partitions=EVERY, projection=fragile.projection, retries=SLOW):
        await feed.publish(*one[:2])
        await until(lambda: is_listed(redis, "o-1"))
        fragile.broken = False
        store = RedisStore(redis, VIEW)
        assert await store.read_build()
        operator = Writer(
            fragile.projection,
            store,
            JetStreamFeed(feed.connection, VIEW.source_streams),
            SLOW,
            lambda _: None,
        )
        await operator.replay("o-1", "ordering.order.o-1")
        await feed.publish(one[2])
        await until(lambda: projection_run.all_written(redis, [one]))
    await projection_run.assert_views(redis, [one])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("step", "nth"), [("write", 1), ("write", 2), ("unlist", 1)])
async def test_a_projector_killed_while_it_unparks_leaves_nothing_undone(
    redis_url: str, nats_url: str, redis: Redis, feed: Events, step: str, nth: int, when: str
) -> None:
    one, fragile = history("o-1"), Fragile()
    quick = RetryPolicy(attempts=100, first_pause=0.01)
    async with projector(
        redis_url, nats_url, partitions=EVERY, projection=fragile.projection, retries=quick
    ) as first:
        await feed.publish(*one[:2])
        await until(lambda: is_listed(redis, "o-1"))
        await until(lambda: projection_run.present(redis))  # progress is behind the event that failed
        await first.stop()
    fragile.broken = False
    late = arrives_meanwhile(projection_run.dying(step, when, nth), feed, one[2])
    async with projector(
        redis_url, nats_url, partitions=EVERY, projection=fragile.projection, retries=quick, store=late
    ) as dying:
        assert isinstance(await dying.died(), Killed)
    async with projector(redis_url, nats_url, partitions=EVERY, projection=fragile.projection, retries=quick):
        await until(lambda: projection_run.all_written(redis, [one]))
        await until(lambda: is_listed(redis))
    await projection_run.assert_views(redis, [one])


def arrives_meanwhile(store: type[RedisStore], feed: Events, event: RecordedEvent) -> type[RedisStore]:
    """Return a store where an event is passed over between reading a parked aggregate and unparking it."""

    class Meanwhile(store):  # type: ignore[misc, valid-type]
        arrived = False

        async def write(self, updates: Any, *checkpoints: Any) -> Any:
            if not self.arrived:
                self.arrived = True
                await feed.publish(event)
                places: Any = await self._redis.hgetall(VIEW.checkpoints)
                partition = str(streams.partition("o-1")).encode()
                epoch, sequence = places[partition].split(b"/")
                passed = {partition: epoch + b"/%d" % (int(sequence) + 1)}
                await self._redis.hset(VIEW.checkpoints, mapping=passed)  # as another projector's would
            return await super().write(updates, *checkpoints)

    return Meanwhile


async def attempts(redis: Redis, order_id: str, at_least: int) -> bool:
    return (await listed(redis))[order_id].attempts >= at_least


async def has_given_up(redis: Redis, order_id: str) -> bool:
    found = (await listed(redis)).get(order_id)
    return found is not None and found.state == "parked" and found.next_attempt is None
