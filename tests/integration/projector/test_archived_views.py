"""Views of ended aggregates become tombstones, and a later event or an operator restores them."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from contracts import streams
from contracts.envelope import RecordedEvent
from contracts.view_layout import parse_checkpoint
from operations.housekeeping.views import archive_projection
from projector.ports import BuildSuperseded
from projector.redis_archive import History, RedisArchive
from projector.redis_store import RedisStore
from projector.retry_schedule import RetryPolicy
from runtime.process.settings import Settings
from runtime.process.start_error import StartError
from tests.support.harness import parked_aggregates, projection_run
from tests.support.harness.projection_run import (
    ALL_PARTITIONS,
    VIEW,
    EventPublisher,
    Killed,
    assert_views,
    dying_store,
    is_ready,
    pausing_store,
    projector,
    read_change_feed,
    read_counters,
    read_index,
    read_view,
)
from tests.support.harness.waiting import until
from tests.support.ledger.histories import START, cheque_events, endorsed, recorded
from tests.support.ledger.projections import CHEQUES, HISTORIES, HISTORY

AFTER_END = int(START.timestamp() + 1) * 10**9
"""After the end of every cheque of `cheque_events`, in nanoseconds since 1970."""
TOMBSTONE = {"version", "revision", "archived", "entries", "counted", "owner"}


async def archive(redis: Redis, projection: Any = CHEQUES, store: Any = None, before: int = AFTER_END) -> int:
    store = store or RedisArchive(redis, projection.view)
    assert await store.read_build() is not None
    return await archive_projection(projection, store, before, dry_run=False)


async def write_views(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, *runs: Sequence[RecordedEvent]
) -> None:
    """Publish events and let a projector apply them; it has ended when this returns."""
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await publisher.publish(*(event for events in runs for event in events))
        await until(lambda: projection_run.has_applied(redis, runs))
        await until(lambda: is_ready(redis))


async def is_restored(redis: Redis, *runs: Sequence[RecordedEvent]) -> bool:
    applied = await projection_run.has_applied(redis, runs)
    return applied and not await redis.hlen(VIEW.parked) and not int(await redis.get(VIEW.archived) or 0)


async def test_only_views_that_ended_before_the_time_are_archived(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    ended, open_ = cheque_events("c-1"), cheque_events("c-2")[:2]
    await write_views(redis_url, nats_url, redis, publisher, ended, open_)
    counters, feed = await read_counters(redis), await read_change_feed(redis)
    assert await archive(redis, before=AFTER_END - 10**9) == 0
    assert await archive(redis) == 1
    assert await archive(redis) == 0
    assert set(await read_view(redis, "c-1")) == TOMBSTONE
    tombstone = await read_view(redis, "c-1")
    assert (tombstone["version"], tombstone["owner"]) == (b"3", b"a-1")
    assert "data" in await read_view(redis, "c-2")
    assert (await read_counters(redis), await read_change_feed(redis)) == (counters, feed)
    assert len(await read_index(redis, VIEW.index("account", "a-1"))) == 2, "a kept index"
    assert len(await read_index(redis, VIEW.index("all"))) == 1
    assert await redis.get(VIEW.archived) == b"1"


async def test_a_dry_run_counts_and_changes_nothing(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    ended = cheque_events("c-1")
    await write_views(redis_url, nats_url, redis, publisher, ended)
    store = RedisArchive(redis, VIEW)
    await store.read_build()
    assert await archive_projection(CHEQUES, store, AFTER_END, dry_run=True) == 1
    await assert_views(redis, [ended])


async def test_a_later_event_restores_the_whole_view(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    ended, later = cheque_events("c-1"), recorded(4, endorsed("c-1", "eve"))
    await write_views(redis_url, nats_url, redis, publisher, ended)
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await until(lambda: is_ready(redis))
        assert await archive(redis) == 1
        await publisher.publish(later)
        await until(lambda: is_restored(redis, [*ended, later]))
    await assert_views(redis, [[*ended, later]])


async def test_redelivered_events_leave_a_tombstone_alone(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    ended = cheque_events("c-1")
    await write_views(redis_url, nats_url, redis, publisher, ended)
    await archive(redis)
    tombstone = await read_view(redis, "c-1")
    await publisher.delete()
    await publisher.create()  # another epoch, from the start
    await publisher.publish(*ended)

    async def has_read() -> bool:
        checkpoint: Any = await redis.hget(VIEW.checkpoints, str(streams.partition("c-1")))
        return parse_checkpoint(checkpoint) == (publisher.epoch, len(ended))

    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await until(has_read)
    assert await read_view(redis, "c-1") == tombstone


async def test_an_operator_restores_a_view_until_the_next_round(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    ended = cheque_events("c-1")
    await write_views(redis_url, nats_url, redis, publisher, ended)
    await archive(redis)
    settings = Settings(redis_url=redis_url)
    with pytest.raises(StartError, match=r"neither parked nor a view of ledger\.cheque: c-9"):
        await parked_aggregates.retry(settings, VIEW, ["c-1", "c-9"])
    assert await parked_aggregates.retry(settings, VIEW, ["c-1"]) == 1
    feed = await read_change_feed(redis)
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await until(lambda: is_restored(redis, ended))
        await assert_views(redis, [ended])
        assert await read_change_feed(redis) == feed, "a restored view has not changed"
        assert await archive(redis) == 1


async def test_a_history_is_archived_and_restored_as_a_whole(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    ended = cheque_events("c-1")
    later = recorded(4, endorsed("c-1", "eve"))
    entries = HISTORY.history("c-1")

    async def count_entries(number: int) -> bool:
        return await redis.hlen(entries) == number

    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, projection=HISTORIES):
        await publisher.publish(*ended)
        await until(lambda: count_entries(3))
        await until(lambda: redis.exists(HISTORY.ready))
        before: Any = await redis.hgetall(entries)
        assert await archive(redis, HISTORIES) == 1
        assert await count_entries(0)
        await publisher.publish(later)
        await until(lambda: count_entries(4))
        after: Any = await redis.hgetall(entries)
    assert before.items() <= after.items()


async def test_an_event_between_the_read_and_the_write_wins(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    ended, later = cheque_events("c-1"), recorded(4, endorsed("c-1", "eve"))
    await write_views(redis_url, nats_url, redis, publisher, ended)
    store = RedisArchive(redis, VIEW)
    await store.read_build()
    records = list((await store.load(["c-1"])).values())
    await write_views(redis_url, nats_url, redis, publisher, [*ended, later][3:])
    assert await store.archive(records, ("account",)) == 0
    await assert_views(redis, [[*ended, later]])


async def test_a_projector_that_had_read_the_view_before_restores_it(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    ended, later = cheque_events("c-1"), recorded(4, endorsed("c-1", "eve"))
    await write_views(redis_url, nats_url, redis, publisher, ended)
    async with projector(
        redis_url, nats_url, partitions=ALL_PARTITIONS, store=pausing_store("write")
    ) as running:
        store: Any = running.store
        await publisher.publish(later)
        await asyncio.wait_for(store.waiting.wait(), 20)  # it has loaded the view and folded the event
        assert await archive(redis) == 1
        store.proceed.set()
        await until(lambda: is_restored(redis, [*ended, later]))
    await assert_views(redis, [[*ended, later]])


async def test_a_rebuild_during_the_round_ends_it(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    ended = cheque_events("c-1")
    await write_views(redis_url, nats_url, redis, publisher, ended)
    store = RedisArchive(redis, VIEW)
    await store.read_build()
    records = list((await store.load(["c-1"])).values())
    await redis.delete(VIEW.build, VIEW.ready)
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await until(lambda: is_ready(redis))
        with pytest.raises(BuildSuperseded):
            await store.archive(records, ("account",))
        await assert_views(redis, [ended])
        assert await archive(redis) == 1
        await redis.delete(VIEW.build, VIEW.ready)
        await until(lambda: is_ready(redis))
        await until(lambda: is_restored(redis, ended))
    await assert_views(redis, [ended])


async def test_a_parked_view_is_not_archived(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    ended = cheque_events("c-1")
    await write_views(redis_url, nats_url, redis, publisher, ended)
    store = RedisArchive(redis, VIEW)
    await store.read_build()
    records = list((await store.load(["c-1"])).values())
    await redis.hset(VIEW.key("c-1"), "parked", "{}")
    assert await archive(redis) == 0
    assert await store.archive(records, ()) == 0


@pytest.mark.parametrize(
    ("when", "nth"),
    [
        ("before", 2),
        *(pytest.param("before", nth, marks=pytest.mark.long) for nth in (1, 3, 4)),
        *(pytest.param("after", nth, marks=pytest.mark.long) for nth in range(1, 5)),
    ],
)
async def test_a_projector_killed_at_any_write_of_a_restore_is_continued(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, when: str, nth: int
) -> None:
    ended, later = cheque_events("c-1"), recorded(4, endorsed("c-1", "eve"))
    await write_views(redis_url, nats_url, redis, publisher, ended)
    await archive(redis)
    await publisher.publish(later)
    store = dying_store("write", when, nth)
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, store=store) as dying:
        assert isinstance(await dying.wait_for_error(), Killed)
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await until(lambda: is_restored(redis, [*ended, later]))
    await assert_views(redis, [[*ended, later]])


async def test_a_full_redis_archives_and_has_room_again(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    ended = cheque_events("c-1")
    await write_views(redis_url, nats_url, redis, publisher, ended)
    await redis.config_set("maxmemory", 1)
    try:
        assert await archive(redis) == 1
    finally:
        await redis.config_set("maxmemory", 0)
    assert set(await read_view(redis, "c-1")) == TOMBSTONE


async def test_a_restored_view_that_lacks_an_event_asks_for_it(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    ended, later = cheque_events("c-1"), recorded(4, endorsed("c-1", "eve"))
    await write_views(redis_url, nats_url, redis, publisher, ended)
    await archive(redis)
    await publisher.connection.js.purge_stream(streams.JETSTREAM)
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await publisher.publish(later)

        async def is_parked() -> bool:
            return await redis.hlen(VIEW.parked) == 1

        await until(is_parked)
        assert set(await read_view(redis, "c-1")) == TOMBSTONE | {"parked"}
        await publisher.delete()
        await publisher.create()
        await publisher.publish(*ended, later)
        await until(lambda: is_restored(redis, [*ended, later]))
    await assert_views(redis, [[*ended, later]])


@pytest.mark.long
@pytest.mark.parametrize("with_event", [True, False])
async def test_a_restore_waits_for_a_stream_that_is_being_filled(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, with_event: bool
) -> None:
    ended, later = cheque_events("c-1"), recorded(4, endorsed("c-1", "eve"))
    run = [*ended, later] if with_event else ended
    await write_views(redis_url, nats_url, redis, publisher, ended)
    await archive(redis)
    await publisher.delete()
    await publisher.create(complete=False)
    times = set()

    async def has_tried_thrice() -> bool:
        record = await redis.hget(VIEW.parked, "c-1")
        times.add(msgspec.json.decode(record)["next_attempt"] if record else None)
        return len(times - {None, 0}) >= 3

    few = RetryPolicy(attempts=1, first_pause=0.01)
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, retries=few):
        if with_event:
            await publisher.publish(later)
        else:
            assert await parked_aggregates.retry(Settings(redis_url=redis_url), VIEW, ["c-1"]) == 1
        await until(has_tried_thrice)
        await publisher.publish(*ended)
        await publisher.mark_complete()
        await until(lambda: is_restored(redis, run))
    await assert_views(redis, [run])


async def test_the_store_shows_a_tombstone(redis: Redis) -> None:
    await redis.hset(VIEW.key("c-1"), mapping={"version": 3, "revision": 4, "archived": 1})
    record = (await RedisStore(redis, VIEW).load(["c-1"]))["c-1"]
    assert (record.version, record.revision, record.archived, record.error) == (3, 4, True, "")


async def test_a_view_that_is_folded_again_has_its_whole_history(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    events = cheque_events("c-1")[:2]
    key, settings = HISTORY.key("c-1"), Settings(redis_url=redis_url)

    async def has_entries(number: int) -> bool:
        return await redis.hlen(HISTORY.history("c-1")) == number and not await redis.hlen(HISTORY.parked)

    store = RedisArchive(redis, HISTORY)
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, projection=HISTORIES):
        await publisher.publish(*events)
        await until(lambda: has_entries(2))
        await store.read_build()
        assert await store.trim(History("c-1", 1, 2), 2)
        assert await has_entries(1)
    assert await parked_aggregates.retry(settings, HISTORY, ["c-1"]) == 1
    assert not await store.trim(History("c-1", 2, 2), 2), "while it is parked"
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, projection=HISTORIES):
        await until(lambda: has_entries(2))
    assert not await redis.hexists(key, "history_from")
