"""Projectors that are killed, doubled or late, and a Redis or a stream that is not what it was."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import Any
from uuid import uuid4

import pytest
from diptych.ordering.v1 import events_pb2 as events
from diptych.ordering.v1 import types_pb2 as views
from nats.js.errors import NotFoundError
from redis.asyncio import Redis

from projector.fold import fold
from projector.ports import BuildSuperseded
from projector.projection import Projection
from projector.projections.ordering.order import ORDERS
from projector.records import Record, Update
from projector.redis_store import RedisStore
from tests.support.harness import projection_run
from tests.support.harness.projection_run import (
    EVERY,
    INCARNATION_ID,
    VIEW,
    Events,
    Killed,
    cancelled,
    history,
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


ONE, TWO, THREE = history("o-1"), history("o-2", "c-2", 1), history("o-3", "c-1", 2)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["read_build", "parked", "load", "write", "advance"])
async def test_a_projector_killed_between_any_two_steps_leaves_nothing_undone(
    redis_url: str, nats_url: str, redis: Redis, feed: Events, step: str, when: str
) -> None:
    async with projector(redis_url, nats_url, partitions=EVERY) as running:
        await feed.publish(ONE[0], TWO[0])
        await until(lambda: projection_run.all_written(redis, [ONE[:1], TWO[:1]]))
        await running.stop()
    await feed.publish(ONE[1], TWO[1], THREE[0], ONE[2])
    store = projection_run.dying(step, when)
    async with projector(redis_url, nats_url, partitions=EVERY, store=store) as dying:
        assert isinstance(await dying.died(), Killed)
    lives = [ONE, TWO[:2], THREE[:1]]
    async with projector(redis_url, nats_url, partitions=EVERY):
        await until(lambda: projection_run.all_written(redis, lives))
    await projection_run.assert_views(redis, lives)


@pytest.mark.parametrize(("step", "when"), [("_wipe", "before"), ("_wipe", "after"), ("refill", "after")])
async def test_a_projector_killed_while_it_wipes_leaves_the_rest_to_another(
    redis_url: str, nats_url: str, redis: Redis, feed: Events, step: str, when: str
) -> None:
    await feed.publish(*ONE)
    async with projector(redis_url, nats_url, partitions=EVERY):
        await until(lambda: projection_run.all_written(redis, [ONE]))
    await redis.set(VIEW.key("ghost"), "of another filling")
    await redis.delete(VIEW.build)
    async with projector(
        redis_url, nats_url, partitions=EVERY, store=projection_run.dying(step, when)
    ) as dying:
        assert isinstance(await dying.died(), Killed)
    assert not await projection_run.present(redis)
    async with projector(redis_url, nats_url, partitions=EVERY):
        await until(lambda: projection_run.present(redis))
    await projection_run.assert_views(redis, [ONE])


async def test_two_projectors_on_the_same_partitions_do_no_harm(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    lives = [history(f"o-{n}", f"c-{n % 7}", n % 60) for n in range(150)]
    async with (
        projector(redis_url, nats_url, partitions=EVERY),
        projector(redis_url, nats_url, partitions=EVERY),
    ):
        for n in range(3):
            await feed.publish(*(life[n] for life in lives))
        await until(lambda: projection_run.all_written(redis, lives))
    await projection_run.assert_views(redis, lives)


REASONS = Projection[views.Order](
    VIEW, events=(events,), indexes=lambda order: [(VIEW.index("reason", order.cancel_reason), "o-1")]
)


@REASONS.on(events.OrderCancelled)
def moved(order: views.Order, event: events.OrderCancelled) -> None:
    order.cancel_reason = event.reason


@pytest.mark.parametrize("step", ["write", "advance"])
async def test_a_projector_that_comes_late_undoes_nothing_that_is_newer(
    redis_url: str, nats_url: str, redis: Redis, feed: Events, step: str
) -> None:
    life = [recorded(n, cancelled("o-1", reason)) for n, reason in enumerate("ababab", 1)]
    await feed.publish(*life[:2])
    async with projector(redis_url, nats_url, partitions=EVERY, projection=REASONS):
        await until(lambda: projection_run.all_written(redis, [life[:2]]))
    await feed.publish(life[2])  # would take the entry of b away
    late_store = projection_run.pausing(step)
    async with projector(redis_url, nats_url, partitions=EVERY, projection=REASONS, store=late_store) as late:
        pause: Any = late.store
        await asyncio.wait_for(pause.waits.wait(), 20)
        async with projector(redis_url, nats_url, partitions=EVERY, projection=REASONS) as prompt:
            await feed.publish(life[3])
            await until(lambda: projection_run.all_written(redis, [life[:4]]))
            await prompt.stop()
        before = await projection_run.indexes(redis)
        assert before == {"index:ordering.order:2:{reason/b}": {"o-1"}}
        pause.go.set()
        await asyncio.wait_for(pause.went.wait(), 20)
        assert await projection_run.version(redis, "o-1") == 4
        assert await projection_run.indexes(redis) == before
        await feed.publish(life[4])
        await until(lambda: projection_run.all_written(redis, [life[:5]]))
    assert await projection_run.indexes(redis) == {"index:ordering.order:2:{reason/a}": {"o-1"}}


async def test_a_flushed_redis_is_filled_again_while_nothing_happens(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    await feed.publish(*ONE, *TWO[:2])
    async with projector(redis_url, nats_url, partitions=EVERY):
        await until(lambda: projection_run.present(redis))
        await redis.flushall()
        await until(lambda: projection_run.present(redis))
        await projection_run.assert_views(redis, [ONE, TWO[:2]])


async def test_a_redis_that_is_flushed_under_load_loses_nothing(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    lives = [history(f"o-{n}", f"c-{n % 5}", n % 60) for n in range(200)]
    async with (
        projector(redis_url, nats_url, partitions=range(8)),
        projector(redis_url, nats_url, partitions=range(8, 16)),
    ):
        for n in range(3):
            for at in range(0, len(lives), 20):
                await feed.publish(*(life[n] for life in lives[at : at + 20]))
                if at in (60, 140):
                    await redis.flushall()
        await until(lambda: projection_run.all_written(redis, lives))
        await until(lambda: projection_run.present(redis))
    await projection_run.assert_views(redis, lives)


async def test_a_projector_frozen_since_before_a_flush_writes_nothing_after_it(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    await feed.publish(ONE[0])
    async with projector(
        redis_url, nats_url, partitions=EVERY, store=projection_run.pausing("write")
    ) as frozen:
        pause: Any = frozen.store
        await asyncio.wait_for(pause.waits.wait(), 20)
        await redis.flushall()
        await feed.publish(ONE[1])
        async with projector(redis_url, nats_url, partitions=EVERY) as other:
            await until(lambda: projection_run.all_written(redis, [ONE[:2]]))
            await until(lambda: projection_run.present(redis))
            fill = await redis.get(VIEW.build)
            await other.stop()
        pause.go.set()
        await feed.publish(ONE[2])
        await until(lambda: projection_run.all_written(redis, [ONE]))
    assert await redis.get(VIEW.build) == fill
    await projection_run.assert_views(redis, [ONE])


async def test_nothing_is_written_into_another_filling_than_was_read(redis: Redis) -> None:
    old, new = RedisStore(redis, VIEW), RedisStore(redis, VIEW)
    for store in (old, new):
        assert await store.read_build() is None
        await store.begin_build(str(uuid4()), "epoch")
        assert await store.read_build() is not None
        await redis.delete(VIEW.build)
    await new.read_build()
    await new.begin_build(INCARNATION_ID, "epoch")
    folded = fold(ORDERS, Record("o-1", views.Order()), ONE[:1])
    update = Update(Record("o-1", views.Order()), folded.record, folded.content, ONE[:1], None, 0)
    with pytest.raises(BuildSuperseded):
        await old.write([update])
    with pytest.raises(BuildSuperseded):
        await old.advance({0: ("epoch/0", "epoch/1")}, {0: 1})
    assert set(await redis.keys()) == {VIEW.build.encode(), VIEW.checkpoints.encode()}
    assert set(await redis.hvals(VIEW.checkpoints)) == {b"epoch/0"}


async def test_progress_moves_with_the_views_or_nothing_does(redis: Redis) -> None:
    store = RedisStore(redis, VIEW)
    assert await store.read_build() is None
    await store.begin_build(INCARNATION_ID, "epoch")
    assert await store.read_build()
    blank = Record("o-1", views.Order())
    first, second = fold(ORDERS, blank, ONE[:1]), fold(ORDERS, blank, ONE[:2])
    update = Update(blank, first.record, first.content, ONE[:1], None, 0)
    with pytest.raises(BuildSuperseded):
        await store.write([update], {0: ("epoch/1", "epoch/2")})
    assert await projection_run.version(redis, "o-1") == 0
    assert await store.write([update], {0: ("epoch/0", "epoch/1")}, {0: 7}) == set()
    assert (await redis.hget(VIEW.checkpoints, "0"), await redis.hgetall(VIEW.as_of)) == (
        b"epoch/1",
        {b"0": b"7"},
    )
    late = Update(blank, second.record, second.content, ONE[:2], None, 0)
    assert await store.write([late], {0: ("epoch/1", "epoch/2")}, {0: 8}) == {"o-1"}
    assert (await redis.hget(VIEW.checkpoints, "0"), await redis.hgetall(VIEW.as_of)) == (
        b"epoch/1",
        {b"0": b"7"},
    )


async def test_a_redis_that_went_back_in_time_catches_up(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    async with projector(redis_url, nats_url, partitions=EVERY):
        await feed.publish(ONE[0], TWO[0])
        await until(lambda: projection_run.present(redis))
        await until(lambda: projection_run.all_written(redis, [ONE[:1], TWO[:1]]))
        earlier: dict[Any, Any] = {key: await redis.dump(key) async for key in redis.scan_iter()}
        await feed.publish(*ONE[1:], TWO[1])
        await until(lambda: projection_run.all_written(redis, [ONE, TWO[:2]]))
        async with redis.pipeline(transaction=True) as pipe:
            pipe.flushall()
            for key, value in earlier.items():
                pipe.restore(key, 0, value)
            await pipe.execute()
        await until(lambda: projection_run.all_written(redis, [ONE, TWO[:2]]))
    await projection_run.assert_views(redis, [ONE, TWO[:2]])


async def test_a_stream_of_a_new_epoch_is_read_from_its_start_and_the_views_stay(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    async with projector(redis_url, nats_url, partitions=EVERY):
        await feed.publish(*ONE, TWO[0])
        await until(lambda: projection_run.all_written(redis, [ONE, TWO[:1]]))
        await until(lambda: projection_run.present(redis))
        before = await projection_run.view(redis, "o-1")
        await feed.delete()
        await feed.create(complete=False)
        await feed.publish(*TWO[:2], *ONE)
        await feed.fill()
        await until(lambda: projection_run.all_written(redis, [ONE, TWO[:2]]))
        await until(lambda: every_partition_is_of(redis, feed.epoch))
        assert await projection_run.present(redis)
    assert await projection_run.view(redis, "o-1") == before
    await projection_run.assert_views(redis, [ONE, TWO[:2]])


async def test_another_incarnation_of_the_database_wipes_everything(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    restored = str(uuid4())
    other = [recorded(1, projection_run.placed("o-1", "c-9")), recorded(2, cancelled("o-1"))]
    async with projector(redis_url, nats_url, partitions=EVERY):
        await feed.publish(*ONE[:2], *TWO)
        await until(lambda: projection_run.present(redis))
        await feed.delete()
        await feed.create(complete=False, incarnation=restored)
        await until(lambda: not_present(redis))
        await feed.publish(*other)
        await until(lambda: projection_run.all_written(redis, [other]))
        assert not await projection_run.present(redis)
        await feed.fill(restored)
        await until(lambda: projection_run.present(redis))
    assert await redis.get(VIEW.ready) == restored.encode()
    await projection_run.assert_views(redis, [other])


async def test_a_projection_is_present_only_when_a_filled_stream_was_read_in_every_partition(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    await feed.delete()
    await feed.create(complete=False)
    lives = [history(f"o-{n}") for n in range(40)]
    first, second = range(5), range(5, 16)
    await feed.publish(*(event for life in lives for event in life))
    async with projector(redis_url, nats_url, partitions=first) as running:
        await until(lambda: places_at_end(redis, feed, first))
        async with projector(redis_url, nats_url, partitions=second) as others:
            await until(lambda: projection_run.all_written(redis, lives))
            await others.stop()
        assert not await projection_run.present(redis)
        await feed.fill()
        await until(lambda: times_known(redis, len(first)))
        assert not await projection_run.present(redis)
        async with projector(redis_url, nats_url, partitions=second):
            await until(lambda: projection_run.present(redis))
            await running.stop()
    assert await redis.get(VIEW.ready) == INCARNATION_ID.encode()
    assert await redis.hlen(VIEW.as_of) == 16


async def test_views_are_known_to_be_fresh_while_nothing_happens(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    async def oldest() -> int:
        return min(map(int, (await redis.hgetall(VIEW.as_of)).values()))

    async with projector(redis_url, nats_url, partitions=EVERY):
        await until(lambda: projection_run.present(redis))
        for before in [await oldest() for _ in range(2)]:
            await until(lambda: newer(oldest, before))  # noqa: B023 - awaited in its turn


@pytest.mark.parametrize("lost", [VIEW.build, VIEW.checkpoints])
async def test_a_projection_is_rebuilt_in_place_when_its_filling_or_its_progress_is_gone(
    redis_url: str, nats_url: str, redis: Redis, feed: Events, lost: str
) -> None:
    await feed.publish(*ONE, *TWO[:1])
    async with (
        projector(redis_url, nats_url, partitions=range(8)),
        projector(redis_url, nats_url, partitions=range(8, 16)),
    ):
        await until(lambda: projection_run.present(redis))
        await redis.hset(VIEW.key("o-1"), "data", b"damaged")
        await redis.hset(VIEW.key("ghost"), "data", b"never was")
        await redis.zadd(VIEW.index("customer", "c-1"), {"ghost": 0})
        fill = await redis.get(VIEW.build)
        await redis.delete(lost)
        await until(lambda: another_fill(redis, fill))
        await until(lambda: projection_run.present(redis))
        await until(lambda: projection_run.all_written(redis, [ONE, TWO[:1]]))
    await projection_run.assert_views(redis, [ONE, TWO[:1]])


async def every_partition_is_of(redis: Redis, epoch: str) -> bool:
    places: Any = await redis.hvals(VIEW.checkpoints)
    return len(places) == 16 and all(place.decode().startswith(f"{epoch}/") for place in places)


async def not_present(redis: Redis) -> bool:
    return not await projection_run.present(redis)


async def another_fill(redis: Redis, than: Any) -> bool:
    found: Any = await redis.get(VIEW.build)
    return found is not None and found != than and not found.endswith(b"wiping")


async def places_at_end(redis: Redis, feed: Events, partitions: range) -> bool:
    """Return whether these partitions have read all that is theirs."""
    ends = dict.fromkeys(partitions, 0)
    for sequence in count(1):
        try:
            message: Any = await feed.connection.js.get_msg("DIPTYCH", seq=sequence, direct=True)
        except NotFoundError:
            break
        partition = int(message.subject.split(".")[2])
        if partition in ends:
            ends[partition] = sequence
    found: Any = await redis.hgetall(VIEW.checkpoints)
    return all(found.get(str(p).encode()) == f"{feed.epoch}/{end}".encode() for p, end in ends.items())


async def times_known(redis: Redis, count: int) -> bool:
    return await redis.hlen(VIEW.as_of) == count


async def newer(oldest: Any, than: int) -> bool:
    return bool(await oldest() > than)
