"""Counters of views stay exact, despite redelivery, reordering, concurrency and kills."""

import random
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from redis.asyncio import Redis

from contracts import streams
from contracts.envelope import RecordedEvent
from projector.fold import fold
from projector.records import Update
from projector.redis_store import RedisStore
from projector.retry_schedule import RetryPolicy
from tests.support.harness import projection_run
from tests.support.harness.projection_run import (
    ALL_PARTITIONS,
    VIEW,
    EventPublisher,
    Killed,
    RunningProjector,
    projector,
)
from tests.support.harness.waiting import until
from tests.support.ledger import histories as expect
from tests.support.ledger.histories import cheque_events, random_cheque_events, recorded, voided, written
from tests.support.ledger.projections import CHEQUES
from tests.support.ledger.stubs import types as views

COUNTERS = VIEW.counters("account", "a-1")


@pytest.fixture
async def store(redis: Redis) -> RedisStore:
    store = RedisStore(redis, VIEW)
    assert await store.read_build() is None
    await store.begin_build(str(uuid4()), "epoch")
    assert await store.read_build() is not None
    return store


def random_histories(rng: random.Random, cheques: int) -> list[list[RecordedEvent]]:
    return [random_cheque_events(rng, f"c-{n}") for n in range(cheques)]


def interleave(rng: random.Random, histories: list[list[RecordedEvent]]) -> list[RecordedEvent]:
    """Return all events in random order, with some repeated and some neighbours swapped."""
    queues = [list(history) for history in histories]
    events: list[RecordedEvent] = []
    while queues:
        queue = rng.choice(queues)
        events.append(queue.pop(0))
        if rng.random() < 0.2:
            events.append(rng.choice(events))
        if rng.random() < 0.2 and len(events) > 1:
            events[-1], events[-2] = events[-2], events[-1]
        queues = [queue for queue in queues if queue]
    return events


@pytest.mark.parametrize("_", range(3))
async def test_counters_match_the_views_despite_kills_doubles_and_redelivery(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, _: int
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    histories = random_histories(rng, 40)
    published = interleave(rng, histories)
    cuts = sorted(rng.sample(range(len(published)), 4))
    for start, end in zip([0, *cuts], [*cuts, len(published)], strict=True):
        await publisher.publish(*published[start:end])
        step, when = rng.choice(["load", "write"]), rng.choice(["before", "after"])
        store = projection_run.dying_store(step, when, rng.randint(1, 3))
        async with (
            projector(redis_url, nats_url, partitions=ALL_PARTITIONS, store=store) as one,
            projector(redis_url, nats_url, partitions=ALL_PARTITIONS, store=store) as two,
        ):
            await until(lambda: has_died_or_finished(redis, [one, two], published[:end]))  # noqa: B023 - awaited here
        await publisher.publish(*rng.sample(published[:end], min(end, 5)))
    async with (
        projector(redis_url, nats_url, partitions=ALL_PARTITIONS),
        projector(redis_url, nats_url, partitions=ALL_PARTITIONS),
    ):
        await until(lambda: projection_run.is_complete(redis, histories))
    await projection_run.assert_views(redis, histories)


async def has_died_or_finished(
    redis: Redis, running: list[RunningProjector], published: list[RecordedEvent]
) -> bool:
    """Return whether a projector has died, or the views include all events up to a gap."""
    if any(isinstance(run.tasks[0].exception(), Killed) for run in running if run.tasks[0].done()):
        return True
    reached = dict.fromkeys((streams.aggregate_id(event.stream) for event in published), 0)
    for event in sorted(published, key=lambda event: event.version):
        cheque_id = streams.aggregate_id(event.stream)
        reached[cheque_id] = max(reached[cheque_id], min(event.version, reached[cheque_id] + 1))
    return all(
        [await projection_run.read_version(redis, each) >= version for each, version in reached.items()]
    )


async def write(store: RedisStore, *histories: list[RecordedEvent]) -> set[str]:
    """Fold these events and write the views in one call; return the ids of those with a conflict."""
    return await store.write([await create_update(store, history) for history in histories])


async def create_update(store: RedisStore, history: list[RecordedEvent]) -> Update:
    """Return the update of a stored view by these events."""
    cheque_id = streams.aggregate_id(history[0].stream)
    before = (await store.load([cheque_id]))[cheque_id]
    result = fold(CHEQUES, before, history)
    assert result.error is None
    return Update(before, result.record, result.content, history, None, 0)


async def test_a_repeated_or_late_write_adds_nothing(store: RedisStore, redis: Redis) -> None:
    history = cheque_events("c-1")
    late = []
    for version in (1, 2, 3):
        late.append(await create_update(store, history[:version]))
        assert await store.write(late[-1:]) == set()
        for update in late:
            assert await store.write([update]) == {"c-1"}
            await projection_run.assert_views(redis, [history[:version]])


async def test_a_view_that_skips_versions_replaces_its_last_contribution(
    store: RedisStore, redis: Redis
) -> None:
    history = cheque_events("c-1")
    await write(store, history[:1])
    await write(store, history[:3])
    await projection_run.assert_views(redis, [history])


async def test_counters_of_zero_are_absent(store: RedisStore, redis: Redis) -> None:
    history = cheque_events("c-1")
    await write(store, history[:1])
    assert set((await projection_run.read_counters(redis))[COUNTERS]) == {
        "cheques/STATE_WRITTEN",
        "cents/STATE_WRITTEN/EUR",
    }
    await write(store, history[:2])
    assert set((await projection_run.read_counters(redis))[COUNTERS]) == {
        "cheques/STATE_ENDORSED",
        "cents/STATE_ENDORSED/EUR",
    }


async def test_sums_beyond_the_precision_of_a_double_are_exact(store: RedisStore, redis: Redis) -> None:
    near = 2**62 + 1
    await redis.hset(COUNTERS, "cents/STATE_WRITTEN/EUR", str(near))
    await write(store, cheque_events("c-1")[:1])
    assert (await projection_run.read_counters(redis))[COUNTERS]["cents/STATE_WRITTEN/EUR"] == near + 1234
    await write(store, cheque_events("c-1")[:2])
    assert (await projection_run.read_counters(redis))[COUNTERS]["cents/STATE_WRITTEN/EUR"] == near


async def test_a_full_counter_stops_no_write_and_its_gap_is_recorded(store: RedisStore, redis: Redis) -> None:
    full = 2**63 - 5
    one, two = cheque_events("c-1"), cheque_events("c-2", "a-2")
    await redis.hset(COUNTERS, "cents/STATE_WRITTEN/EUR", str(full))
    assert await write(store, one[:1], two) == set()
    assert (await projection_run.read_counters(redis))[COUNTERS] == {
        "cheques/STATE_WRITTEN": 1,
        "cents/STATE_WRITTEN/EUR": full,
    }
    assert await projection_run.read_version(redis, "c-1") == 1
    assert await projection_run.read_version(redis, "c-2") == 3
    fields = await projection_run.read_view(redis, "c-1")
    counted = parse_contributions(fields["counted"])
    uncounted = [each for each in parse_contributions(fields["contributions"]) if each not in counted]
    assert uncounted == [[COUNTERS, "cents/STATE_WRITTEN/EUR", "1234"]]
    await write(store, one[:2])  # subtracts the counted contributions only
    assert (await projection_run.read_counters(redis))[COUNTERS] == {
        "cents/STATE_WRITTEN/EUR": full,
        "cheques/STATE_ENDORSED": 1,
        "cents/STATE_ENDORSED/EUR": 1234,
    }


def parse_contributions(data: bytes) -> list[Any]:
    contributions: list[Any] = msgspec.json.decode(data)
    return contributions


async def test_nothing_is_counted_if_all_counters_are_full(store: RedisStore, redis: Redis) -> None:
    counters = ("cheques/STATE_WRITTEN", "cents/STATE_WRITTEN/EUR")
    await redis.hset(COUNTERS, mapping=dict.fromkeys(counters, str(2**63 - 1)))
    await write(store, cheque_events("c-1")[:1])
    assert (await projection_run.read_view(redis, "c-1"))["counted"] == b"[]"


async def test_an_impossible_amount_parks_its_own_view_and_no_other(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    absurd, two = written("c-1"), cheque_events("c-2")
    absurd.amount = 2**63 - 1
    slow = RetryPolicy(first_pause=60.0)
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, retries=slow):
        await publisher.publish(recorded(1, absurd), recorded(2, voided("c-1")), *two)
        await until(lambda: projection_run.has_applied(redis, [two]))
        await until(lambda: redis.hexists(VIEW.parked, "c-1"))
        await until(lambda: projection_run.is_ready(redis))
    assert await projection_run.read_counters(redis) == expect.counters([expect.cheque(two)])
    assert b"is beyond %d" % 10**15 in (await projection_run.read_view(redis, "c-1"))["parked"]
    fields = await projection_run.read_view(redis, "c-2")
    assert views.Cheque.FromString(fields["data"]) == expect.cheque(two)
