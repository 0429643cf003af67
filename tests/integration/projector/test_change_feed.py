"""What is announced when views have changed: to whom, in which order, and exactly once."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from redis.asyncio import Redis

from contracts import streams
from contracts.envelope import RecordedEvent
from contracts.view_layout import View
from projector.fold import fold
from projector.projections.ordering.order import ORDERS
from projector.projections.ordering.order_history import HISTORIES
from projector.records import Update
from projector.redis_store import RedisStore
from tests.support.harness import projection_run
from tests.support.harness.projection_run import EVERY, VIEW, Events, Killed, history, projector
from tests.support.harness.waiting import until

SET = VIEW.change_feed("customer", "c-1")
ONE, TWO, OTHER = history("o-1"), history("o-2"), history("o-3", "c-2")


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def feed(nats_url: str) -> AsyncIterator[Events]:
    async with projection_run.publisher(nats_url) as events:
        await events.create()
        yield events


async def begin(store: RedisStore) -> RedisStore:
    assert await store.read_build() is None
    await store.begin_build(str(uuid4()), "epoch")
    assert await store.read_build() is not None
    return store


@pytest.fixture
async def store(redis: Redis) -> RedisStore:
    return await begin(RedisStore(redis, VIEW))


class Heard:
    """What came over a projection's channel."""

    def __init__(self, redis: Redis, view: View = VIEW) -> None:
        self._channel = redis.pubsub()
        self._view = view

    async def __aenter__(self) -> "Heard":
        await self._channel.subscribe(self._view.change_channel)
        confirmed: Any = await self._channel.get_message(timeout=5)
        assert confirmed["type"] == "subscribe"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.aclose()  # type: ignore[no-untyped-call]

    async def next(self, wait: float = 5) -> tuple[set[str], set[str]] | None:
        """Return the ids and the keys that the next message names; None where there is none."""
        message: Any = await self._channel.get_message(timeout=wait)
        if message is None:
            return None
        ids, keys = msgspec.msgpack.decode(message["data"], type=tuple[list[str], list[str]])
        assert (len(ids), len(keys)) == (len(set(ids)), len(set(keys)))
        return set(ids), set(keys)

    async def nothing(self) -> bool:
        """Return whether nothing came; everything that Redis did before is heard by then."""
        return await self.next(0.05) is None


async def write(store: RedisStore, *lives: list[RecordedEvent]) -> set[str]:
    """Write what becomes of views by these events, in one call; return the ids of those that were lost."""
    return await store.write([await update(store, life) for life in lives])


async def update(store: RedisStore, life: list[RecordedEvent]) -> Update:
    """Return the write of a view that all these events lead to."""
    projection = ORDERS if store._view == VIEW else HISTORIES
    order_id = streams.aggregate_id(life[0].stream)
    before = (await store.load([order_id]))[order_id]
    folded = fold(projection, before, life)
    assert folded.error is None
    return Update(before, folded.record, folded.content, life, None, 0)


async def test_a_change_is_announced_with_its_write(store: RedisStore, redis: Redis) -> None:
    async with Heard(redis) as heard:
        assert await write(store, ONE[:1]) == set()
        assert await heard.next() == ({"o-1"}, {SET})
        assert await heard.nothing()
    assert await projection_run.changes(redis) == {"o-1": 1}


async def test_numbers_rise_with_every_change_and_the_last_change_comes_last(
    store: RedisStore, redis: Redis
) -> None:
    for life in (ONE[:1], TWO[:1], ONE[:2], ONE, TWO):
        await write(store, life)
    assert await projection_run.changes(redis) == {"o-1": 4, "o-2": 5}


async def test_views_that_change_together_are_one_message_with_numbers_of_their_own(
    store: RedisStore, redis: Redis
) -> None:
    async with Heard(redis) as heard:
        await write(store, ONE, TWO, OTHER)
        keys = {SET, VIEW.change_feed("customer", "c-2")}
        assert await heard.next() == ({"o-1", "o-2", "o-3"}, keys)
        assert await heard.nothing()
    assert await projection_run.changes(redis) == {"o-1": 1, "o-2": 2}
    assert await projection_run.changes(redis, "c-2") == {"o-3": 1}


async def test_a_view_that_has_moved_on_is_neither_written_nor_announced(
    store: RedisStore, redis: Redis
) -> None:
    late = await update(store, ONE[:1])
    await write(store, ONE[:2])
    before = await projection_run.view(redis, "o-1")
    async with Heard(redis) as heard:
        assert await store.write([late, await update(store, TWO)]) == {"o-1"}
        assert await heard.next() == ({"o-2"}, {SET})
        assert await store.write([late]) == {"o-1"}
        assert await heard.nothing()
    assert await projection_run.view(redis, "o-1") == before
    assert await projection_run.changes(redis) == {"o-1": 1, "o-2": 2}


async def test_a_set_of_changes_keeps_the_last_ones(redis: Redis) -> None:
    store = await begin(RedisStore(redis, VIEW, changes_kept=3))
    lives = [history(f"o-{n}") for n in range(5)]
    await write(store, *lives[:4])
    assert await projection_run.changes(redis) == {"o-1": 2, "o-2": 3, "o-3": 4}
    await write(store, lives[4])
    assert await projection_run.changes(redis) == {"o-2": 3, "o-3": 4, "o-4": 5}


async def test_a_projection_without_sets_of_changes_still_tells_what_has_changed(redis: Redis) -> None:
    store = await begin(RedisStore(redis, HISTORIES.view))
    async with Heard(redis, HISTORIES.view) as heard:
        await write(store, ONE)
        assert await heard.next() == ({"o-1"}, set())


async def test_changes_are_numbered_over_the_changes_of_other_projectors(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    lives = [history(f"o-{n}") for n in range(60)]
    async with (
        projector(redis_url, nats_url, partitions=EVERY),
        projector(redis_url, nats_url, partitions=EVERY),
    ):
        for n in range(3):
            await feed.publish(*(life[n] for life in lives))
            await until(lambda: projection_run.all_written(redis, [life[: n + 1] for life in lives]))  # noqa: B023 - awaited in its turn
    numbers = await projection_run.changes(redis)
    assert len(numbers) == len(set(numbers.values())) == 60
    assert 120 < min(numbers.values()) <= max(numbers.values()) == 180  # each changed three times


async def test_what_a_killed_projector_has_not_announced_the_next_one_does(
    redis_url: str, nats_url: str, redis: Redis, feed: Events
) -> None:
    await feed.publish(*ONE)
    store = projection_run.dying("write", "before")
    async with projector(redis_url, nats_url, partitions=EVERY, store=store) as dying:
        assert isinstance(await dying.died(), Killed)
    assert await projection_run.changes(redis) == {}
    async with Heard(redis) as heard, projector(redis_url, nats_url, partitions=EVERY):
        assert await heard.next(15) == ({"o-1"}, {SET})
    assert await projection_run.changes(redis) == {"o-1": 1}
