"""Events that cannot be applied: they park their own aggregate, are retried, and affect no other."""

import asyncio
from time import time
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from contracts import streams
from contracts.envelope import RecordedEvent
from projector import replayer
from projector.event_feed import JetStreamEventFeed
from projector.projection import Projection
from projector.records import Parked, Update
from projector.redis_store import RedisStore
from projector.replayer import Replayer
from projector.retry_schedule import MAX_CLOCK_OFFSET, RetryPolicy, RetrySchedule
from runtime.jetstream import SharedReader
from runtime.process.settings import Settings
from runtime.process.start_error import StartError
from tests.support.harness import parked_aggregates, projection_run
from tests.support.harness.projection_run import ALL_PARTITIONS, VIEW, EventPublisher, Killed, projector
from tests.support.harness.waiting import until
from tests.support.ledger import histories as expect
from tests.support.ledger.events import EVENTS
from tests.support.ledger.histories import cheque_events, recorded, voided
from tests.support.ledger.projections import CHEQUES, change_feeds, contributions, index_entries
from tests.support.ledger.stubs import events
from tests.support.ledger.stubs import types as views

SLOW = RetryPolicy(first_pause=60.0)


class Fragile:
    """A projection of cheques whose handler of ChequeEndorsed fails while `broken` is set."""

    def __init__(self) -> None:
        self.broken = True
        self.projection = Projection[Any](
            VIEW,
            events=EVENTS,
            indexes=index_entries,
            contributions=contributions,
            change_feeds=change_feeds,
        )
        for event, handler in CHEQUES.handlers.items():
            replacement: Any = self.endorsed if event is events.ChequeEndorsed else handler
            self.projection.on(event)(replacement)

    def endorsed(self, cheque: Any, event: Any) -> None:
        cheque.state = views.Cheque.STATE_ENDORSED
        cheque.endorsers.append(event.endorser)
        if self.broken:
            raise RuntimeError("out of paper")
        cheque.endorse_time.CopyFrom(event.endorsed_at)


def malformed(cheque_id: str, version: int) -> RecordedEvent:
    event = recorded(version, voided(cheque_id))
    return RecordedEvent(event.stream, version, event.type, b"\xff\xff", event.recorded_at, version, {})


async def replay(redis: Redis, publisher: EventPublisher, projection: Projection[Any]) -> None:
    """Replay the aggregate c-1, as another process."""
    shared = SharedReader(publisher.connection, frozenset)  # a replay reads single subjects
    store = RedisStore(redis, VIEW)
    feed = JetStreamEventFeed(publisher.connection, shared, VIEW.source_streams)
    assert await store.read_build()
    operator = Replayer(projection, store, feed, SLOW, lambda _: None, RetrySchedule(), asyncio.Semaphore(1))
    assert await operator.replay("c-1", "ledger.cheque.c-1") is None


async def read_parked(redis: Redis) -> dict[str, Parked]:
    records: Any = await redis.hgetall("parked:ledger.cheque:2")
    return {view_id.decode(): msgspec.json.decode(record, type=Parked) for view_id, record in records.items()}


async def are_parked(redis: Redis, *cheque_ids: str) -> bool:
    return set(await read_parked(redis)) == set(cheque_ids)


async def test_a_malformed_event_parks_its_own_aggregate_and_no_other(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    one, two = cheque_events("c-1"), cheque_events("c-2")
    began = int(time() * 1000)
    updates: list[Update] = []
    async with projector(
        redis_url, nats_url, partitions=ALL_PARTITIONS, retries=SLOW, observe=updates.extend
    ):
        await publisher.publish(one[0], two[0], malformed("c-1", 2), two[1], one[2], two[2])
        await until(lambda: projection_run.has_applied(redis, [one[:1], two]))
        await until(lambda: are_parked(redis, "c-1"))
        await until(lambda: projection_run.is_ready(redis))
    fields = await projection_run.read_view(redis, "c-1")
    assert views.Cheque.FromString(fields["data"]) == expect.cheque(one[:1])
    parked = (await read_parked(redis))["c-1"]
    assert msgspec.json.decode(fields["parked"], type=Parked) == parked
    assert (parked.stream, parked.version, parked.attempts) == ("ledger.cheque.c-1", 2, 1)
    assert (parked.state, "DecodeError" in parked.error) == ("retrying", True)
    assert began <= parked.since <= int(time() * 1000)
    assert parked.next_attempt is not None
    assert 30_000 <= parked.next_attempt - parked.since <= 90_000
    assert [
        update.failed_event and update.failed_event.version for update in updates if update.after.parked
    ] == [2]


class Counting(Fragile):
    """Counts the attempts to apply ChequeEndorsed."""

    attempts = 0

    def endorsed(self, cheque: Any, event: Any) -> None:
        self.attempts += 1
        super().endorsed(cheque, event)


async def test_a_projector_with_other_code_retries_by_itself_and_once(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replayer, "REFRESH_INTERVAL", 0.05)
    one, fragile = cheque_events("c-1"), Counting()

    async def run(code: str, until_: Any) -> None:
        retries = RetryPolicy(attempts=2, first_pause=0.02, code=code)
        async with projector(
            redis_url,
            nats_url,
            partitions=ALL_PARTITIONS,
            projection=fragile.projection,
            retries=retries,
        ):
            await until(until_)
            await until(lambda: projection_run.is_ready(redis))

    async def is_tried_by(*codes: str) -> bool:
        parked = (await read_parked(redis)).get("c-1")
        return parked is not None and (parked.state, parked.tried_by) == ("parked", codes)

    await publisher.publish(*one)
    await run("old", lambda: is_tried_by("old"))
    attempts = fragile.attempts
    await run("other", lambda: is_tried_by("old", "other"))
    assert fragile.attempts - attempts <= 2  # one attempt; the fold repeats an event that failed
    attempts = fragile.attempts
    for code in ("old", "other"):  # both have failed: neither tries again
        await redis.zadd(VIEW.parked_since, {code: 1})
        await run(code, lambda: is_reconciled(redis))
    assert fragile.attempts == attempts
    fragile.broken = False
    await run("new", lambda: are_parked(redis))
    assert await redis.zcard(VIEW.parked_since) == 0
    await projection_run.assert_views(redis, [one])


async def test_a_parked_view_tells_since_when_it_lacks_an_event(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    one = cheque_events("c-1")
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, retries=SLOW):
        await publisher.publish(one[0])
        await until(lambda: projection_run.has_applied(redis, [one[:1]]))
        await until(lambda: has_known_times(redis))
        before = int(time() * 1000)
        event = malformed("c-1", 2)
        await publisher.publish(event)
        await until(lambda: are_parked(redis, "c-1"))
        parked = (await read_parked(redis))["c-1"]
        assert before - 5_000 < parked.stale_since <= before  # the last time that included all events
        assert await redis.zscore(VIEW.parked_since, "c-1") == parked.stale_since
    await redis.flushall()
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, retries=SLOW):
        await until(lambda: are_parked(redis, "c-1"))
        rebuilt = (await read_parked(redis))["c-1"]
    recorded_at = int(event.recorded_at.timestamp() * 1000)
    assert rebuilt.stale_since == recorded_at - MAX_CLOCK_OFFSET  # a build has no time yet


async def is_reconciled(redis: Redis) -> bool:
    """Return whether a projector has read the list of the parked aggregates."""
    return await redis.zcard(VIEW.parked_since) == 1


async def has_known_times(redis: Redis) -> bool:
    times: Any = await redis.hvals(VIEW.as_of)
    return len(times) == 16 and all(map(int, times))


async def test_times_of_parked_aggregates_follow_the_list(redis: Redis) -> None:
    store = RedisStore(redis, VIEW)
    record = msgspec.json.encode(Parked("ledger.cheque.c-1", 2, "oops", 0, 6, None, "parked"))
    await redis.hset(VIEW.parked, "c-1", record)  # by a release that kept no times
    await redis.zadd(VIEW.parked_since, {"c-2": 5, "c-3": 6})  # unparked by such a release
    assert set(await store.load_parked()) == {"c-1"}
    assert await redis.zrange(VIEW.parked_since, 0, -1, withscores=True) == [(b"c-1", 0)]


async def test_the_first_event_of_an_aggregate_may_be_malformed(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    two = cheque_events("c-2")
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, retries=SLOW):
        await publisher.publish(malformed("c-1", 1), *two)
        await until(lambda: projection_run.has_applied(redis, [two]))
        await until(lambda: are_parked(redis, "c-1"))
    fields = await projection_run.read_view(redis, "c-1")
    assert (fields["version"], "data" in fields, "entries" in fields) == (b"0", False, False)


async def test_a_gap_without_its_event_parks_the_aggregate(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    one, two = cheque_events("c-1"), cheque_events("c-2")
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, retries=SLOW):
        await publisher.publish(one[0], one[2], *two)
        await until(lambda: projection_run.has_applied(redis, [one[:1], two]))
        await until(lambda: are_parked(redis, "c-1"))
    parked = (await read_parked(redis))["c-1"]
    assert (parked.version, parked.error) == (2, "EventsMissing: event 2 is missing before event 3")


async def test_a_retry_applies_the_event_and_all_that_followed_it(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    one, two, fragile = cheque_events("c-1"), cheque_events("c-2"), Fragile()
    many_attempts = RetryPolicy(attempts=100, first_pause=0.02)
    async with projector(
        redis_url, nats_url, partitions=ALL_PARTITIONS, projection=fragile.projection, retries=many_attempts
    ):
        await publisher.publish(*one[:2], two[0])
        await until(lambda: are_parked(redis, "c-1"))
        await publisher.publish(one[2])
        await until(lambda: has_attempts(redis, "c-1", at_least=3))
        assert await projection_run.read_version(redis, "c-1") == 1
        fragile.broken = False
        await until(lambda: projection_run.has_applied(redis, [one, two[:1]]))
        await until(lambda: are_parked(redis))
    await projection_run.assert_views(redis, [one, two[:1]])


async def test_after_the_last_attempt_only_a_replay_unparks(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    one, two, fragile = cheque_events("c-1"), cheque_events("c-2"), Fragile()
    quick = RetryPolicy(attempts=3, first_pause=0.02)
    async with projector(
        redis_url, nats_url, partitions=ALL_PARTITIONS, projection=fragile.projection, retries=quick
    ):
        await publisher.publish(*one[:2])
        await until(lambda: is_out_of_attempts(redis, "c-1"))
        assert (await read_parked(redis))["c-1"].attempts == 3
        fragile.broken = False
        await publisher.publish(one[2], *two)
        await until(lambda: projection_run.has_applied(redis, [two]))
        assert await projection_run.read_version(redis, "c-1") == 1
        await replay(redis, publisher, fragile.projection)
        await projection_run.assert_views(redis, [one, two])
        assert await are_parked(redis)


async def test_an_operators_retry_unparks_chosen_aggregates(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replayer, "REFRESH_INTERVAL", 0.05)
    one, two, fragile = cheque_events("c-1"), cheque_events("c-2"), Fragile()
    quick, settings = RetryPolicy(attempts=2, first_pause=0.02), Settings(redis_url=redis_url)
    async with projector(
        redis_url, nats_url, partitions=ALL_PARTITIONS, projection=fragile.projection, retries=quick
    ):
        await publisher.publish(*one, *two)
        for cheque_id in ("c-1", "c-2"):
            await until(lambda: is_out_of_attempts(redis, cheque_id))  # noqa: B023 - awaited here
        with pytest.raises(StartError, match=r"neither parked nor a view of ledger\.cheque: c-3"):
            await parked_aggregates.retry(settings, VIEW, ["c-1", "c-3"])
        fragile.broken = False
        assert await parked_aggregates.retry(settings, VIEW, ["c-1"]) == 1
        await until(lambda: are_parked(redis, "c-2"))
        assert await parked_aggregates.retry(settings, VIEW, []) == 1
        await until(lambda: are_parked(redis))
    await projection_run.assert_views(redis, [one, two])


async def test_a_projector_notices_an_unparking_by_another_process(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    one, fragile = cheque_events("c-1"), Fragile()
    async with projector(
        redis_url, nats_url, partitions=ALL_PARTITIONS, projection=fragile.projection, retries=SLOW
    ):
        await publisher.publish(*one[:2])
        await until(lambda: are_parked(redis, "c-1"))
        fragile.broken = False
        await replay(redis, publisher, fragile.projection)
        await publisher.publish(one[2])
        await until(lambda: projection_run.is_complete(redis, [one]))
    await projection_run.assert_views(redis, [one])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("step", "nth"), [("write", 1), ("write", 2), ("unlist_parked", 1)])
async def test_a_projector_killed_while_unparking_loses_no_event(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, step: str, nth: int, when: str
) -> None:
    one, fragile = cheque_events("c-1"), Fragile()
    quick = RetryPolicy(attempts=100, first_pause=0.01)
    async with projector(
        redis_url, nats_url, partitions=ALL_PARTITIONS, projection=fragile.projection, retries=quick
    ) as first:
        await publisher.publish(*one[:2])
        await until(lambda: are_parked(redis, "c-1"))
        await until(lambda: projection_run.is_ready(redis))  # the checkpoint is past the failed event
        await first.stop()
    fragile.broken = False
    store = interrupted_store(projection_run.dying_store(step, when, nth), publisher, one[2])
    async with projector(
        redis_url,
        nats_url,
        partitions=ALL_PARTITIONS,
        projection=fragile.projection,
        retries=quick,
        store=store,
    ) as dying:
        assert isinstance(await dying.wait_for_error(), Killed)
    async with projector(
        redis_url, nats_url, partitions=ALL_PARTITIONS, projection=fragile.projection, retries=quick
    ):
        await until(lambda: projection_run.is_complete(redis, [one]))
        await until(lambda: are_parked(redis))
    await projection_run.assert_views(redis, [one])


def interrupted_store(
    store: type[RedisStore], publisher: EventPublisher, event: RecordedEvent
) -> type[RedisStore]:
    """Return a store where an event is skipped between the loading and the unparking of its aggregate."""

    class InterruptedStore(store):  # type: ignore[misc, valid-type]
        published = False

        async def write(self, updates: Any, *checkpoints: Any) -> Any:
            if not self.published:
                self.published = True
                await publisher.publish(event)
                stored: Any = await self._redis.hgetall(VIEW.checkpoints)
                partition = str(streams.partition("c-1")).encode()
                epoch, sequence = stored[partition].split(b"/")
                advanced = {partition: epoch + b"/%d" % (int(sequence) + 1)}
                await self._redis.hset(VIEW.checkpoints, mapping=advanced)  # as another projector does
            return await super().write(updates, *checkpoints)

    return InterruptedStore


async def has_attempts(redis: Redis, cheque_id: str, at_least: int) -> bool:
    return (await read_parked(redis))[cheque_id].attempts >= at_least


async def is_out_of_attempts(redis: Redis, cheque_id: str) -> bool:
    record = (await read_parked(redis)).get(cheque_id)
    return record is not None and record.state == "parked" and record.next_attempt is None
