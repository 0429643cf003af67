"""Change feeds and notifications of changed views: content, order, and exactly one per change."""

from typing import Any
from uuid import uuid4

import msgspec
import pytest
from redis.asyncio import Redis

from contracts import streams
from contracts.envelope import RecordedEvent
from contracts.view_layout import View, id_of_member
from projector.fold import fold
from projector.records import Update
from projector.redis_store import RedisStore
from tests.support.harness import projection_run
from tests.support.harness.projection_run import ALL_PARTITIONS, VIEW, EventPublisher, Killed, projector
from tests.support.harness.waiting import until
from tests.support.ledger.histories import cheque_events
from tests.support.ledger.projections import CHEQUES, HISTORIES

FEED = VIEW.change_feed("account", "a-1")
STATES = ("STATE_ENDORSED", "STATE_VOIDED")
ONE, TWO, OTHER = cheque_events("c-1"), cheque_events("c-2"), cheque_events("c-3", "a-2")


async def begin(store: RedisStore) -> RedisStore:
    assert await store.read_build() is None
    await store.begin_build(str(uuid4()), "epoch")
    assert await store.read_build() is not None
    return store


@pytest.fixture
async def store(redis: Redis) -> RedisStore:
    return await begin(RedisStore(redis, VIEW))


class Notifications:
    """A subscription to a projection's change channel."""

    def __init__(self, redis: Redis, view: View = VIEW) -> None:
        self._channel = redis.pubsub()
        self._view = view

    async def __aenter__(self) -> "Notifications":
        await self._channel.subscribe(self._view.change_channel)
        reply: Any = await self._channel.get_message(timeout=5)
        assert reply["type"] == "subscribe"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.aclose()  # type: ignore[no-untyped-call]

    async def next(self, wait: float = 5) -> tuple[set[str], set[str]] | None:
        """Return the view ids and feed keys of the next notification; None if `wait` seconds pass."""
        message: Any = await self._channel.get_message(timeout=wait)
        if message is None:
            return None
        ids, keys = msgspec.msgpack.decode(message["data"], type=tuple[list[str], list[str]])
        assert (len(ids), len(keys)) == (len(set(ids)), len(set(keys)))
        return set(ids), set(keys)

    async def none_left(self) -> bool:
        """Return whether no notification is left; those of finished writes have arrived by then."""
        return await self.next(0.05) is None


async def write(store: RedisStore, *histories: list[RecordedEvent]) -> set[str]:
    """Fold these events and write the views in one call; return the ids of those with a conflict."""
    return await store.write([await create_update(store, history) for history in histories])


async def create_update(store: RedisStore, history: list[RecordedEvent]) -> Update:
    """Return the update of a stored view by these events."""
    projection = CHEQUES if store._view == VIEW else HISTORIES
    cheque_id = streams.aggregate_id(history[0].stream)
    before = (await store.load([cheque_id]))[cheque_id]
    result = fold(projection, before, history)
    assert result.error is None
    return Update(before, result.record, result.content, history, None, 0)


async def test_a_change_is_notified_with_its_write(store: RedisStore, redis: Redis) -> None:
    async with Notifications(redis) as notifications:
        assert await write(store, ONE[:1]) == set()
        assert await notifications.next() == ({"c-1"}, {FEED})
        assert await notifications.none_left()
    assert await projection_run.read_change_feed(redis) == {"c-1": 1}


async def test_each_change_gets_the_next_number_of_the_feed(store: RedisStore, redis: Redis) -> None:
    for history in (ONE[:1], TWO[:1], ONE[:2], ONE, TWO):
        await write(store, history)
    assert await projection_run.read_change_feed(redis) == {"c-1": 4, "c-2": 5}


async def test_views_that_change_together_share_one_notification(store: RedisStore, redis: Redis) -> None:
    async with Notifications(redis) as notifications:
        await write(store, ONE, TWO, OTHER)
        keys = {FEED, VIEW.change_feed("account", "a-2")}
        assert await notifications.next() == ({"c-1", "c-2", "c-3"}, keys)
        assert await notifications.none_left()
    assert await projection_run.read_change_feed(redis) == {"c-1": 1, "c-2": 2}
    assert await projection_run.read_change_feed(redis, "a-2") == {"c-3": 1}


async def test_a_view_with_a_conflict_is_neither_written_nor_notified(
    store: RedisStore, redis: Redis
) -> None:
    late = await create_update(store, ONE[:1])
    await write(store, ONE[:2])
    before = await projection_run.read_view(redis, "c-1")
    async with Notifications(redis) as notifications:
        assert await store.write([late, await create_update(store, TWO)]) == {"c-1"}
        assert await notifications.next() == ({"c-2"}, {FEED})
        assert await store.write([late]) == {"c-1"}
        assert await notifications.none_left()
    assert await projection_run.read_view(redis, "c-1") == before
    assert await projection_run.read_change_feed(redis) == {"c-1": 1, "c-2": 2}


async def test_a_view_with_a_conflict_leaves_the_lists_that_it_shares(
    store: RedisStore, redis: Redis
) -> None:
    for history in (ONE[:1], TWO[:1]):
        await write(store, history)
    late, current = await create_update(store, ONE), await create_update(store, TWO)
    await write(store, ONE[:2])
    assert await store.write([late, current]) == {"c-1"}
    listed = [await projection_run.read_index(redis, VIEW.index("state", state)) for state in STATES]
    assert [[id_of_member(member) for member in members] for members in listed] == [["c-1"], ["c-2"]]


async def test_a_change_feed_keeps_the_latest_changes(redis: Redis) -> None:
    store = await begin(RedisStore(redis, VIEW, max_change_feed_size=3))
    histories = [cheque_events(f"c-{n}") for n in range(5)]
    await write(store, *histories[:4])
    assert await projection_run.read_change_feed(redis) == {"c-1": 2, "c-2": 3, "c-3": 4}
    await write(store, histories[4])
    assert await projection_run.read_change_feed(redis) == {"c-2": 3, "c-3": 4, "c-4": 5}


async def test_a_projection_without_change_feeds_still_notifies(redis: Redis) -> None:
    store = await begin(RedisStore(redis, HISTORIES.view))
    async with Notifications(redis, HISTORIES.view) as notifications:
        await write(store, ONE)
        assert await notifications.next() == ({"c-1"}, set())


async def test_concurrent_projectors_share_the_numbers_of_a_feed(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    histories = [cheque_events(f"c-{n}") for n in range(60)]
    async with (
        projector(redis_url, nats_url, partitions=ALL_PARTITIONS),
        projector(redis_url, nats_url, partitions=ALL_PARTITIONS),
    ):
        for n in range(3):
            await publisher.publish(*(history[n] for history in histories))
            published = [history[: n + 1] for history in histories]
            await until(lambda: projection_run.has_applied(redis, published))  # noqa: B023 - awaited here
    numbers = await projection_run.read_change_feed(redis)
    assert len(numbers) == len(set(numbers.values())) == 60
    assert 120 < min(numbers.values()) <= max(numbers.values()) == 180  # each changed three times


async def test_the_next_projector_notifies_changes_of_a_killed_one(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    await publisher.publish(*ONE)
    store = projection_run.dying_store("write", "before")
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, store=store) as dying:
        assert isinstance(await dying.wait_for_error(), Killed)
    assert await projection_run.read_change_feed(redis) == {}
    async with (
        Notifications(redis) as notifications,
        projector(redis_url, nats_url, partitions=ALL_PARTITIONS),
    ):
        assert await notifications.next(15) == ({"c-1"}, {FEED})
    assert await projection_run.read_change_feed(redis) == {"c-1": 1}
