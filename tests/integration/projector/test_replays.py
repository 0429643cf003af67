"""Parked aggregates with long histories are replayed beside the session, reading on behind their view."""

import asyncio
import random
from collections.abc import Sequence
from time import monotonic
from typing import Any

import pytest
from redis.asyncio import Redis

from contracts import streams
from projector import event_slices, replayer
from projector.records import Update
from projector.redis_store import RedisStore
from projector.retry_schedule import RetryPolicy
from runtime.jetstream import Message, SubjectReader
from tests.support.harness import projection_run
from tests.support.harness.fragile_accounts import (
    HOT,
    NEIGHBOURS,
    FragileAccounts,
    assert_accounts,
    is_complete,
    is_parked,
    list_payments,
    publish_all,
    read_version,
)
from tests.support.harness.projection_run import ALL_PARTITIONS, EventPublisher, Killed, projector
from tests.support.harness.waiting import until
from tests.support.ledger.histories import cheque_events
from tests.support.ledger.projections import ACCOUNT

POISON, OTHER_POISON = 13, 17


class SteadyPolicy(RetryPolicy):
    """Retries every 50 ms: on a busy machine, pauses that double would soon exceed a test's deadline."""

    def _compute_pause(self, attempts: int) -> int:
        return 50


QUICK = SteadyPolicy(attempts=10**6)
FEW = RetryPolicy(attempts=3, first_pause=0.02)


class Reads:
    """Counts the messages that are read from the subjects of aggregates, and holds reading back."""

    def __init__(self) -> None:
        self.messages = 0
        self.allowed = asyncio.Event()
        self.allowed.set()
        self.waiting = asyncio.Event()

    async def read_batch(self, reader: SubjectReader, limit: int = 250) -> list[Message]:
        self.waiting.set()
        await self.allowed.wait()
        batch = await READ_BATCH(reader, limit)
        self.messages += len(batch)
        return batch


READ_BATCH = SubjectReader.read_batch


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    reads = Reads()
    monkeypatch.setattr(SubjectReader, "read_batch", lambda *args: reads.read_batch(*args))
    return reads


async def test_other_aggregates_of_the_partition_go_on_during_a_replay(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, reads: Reads
) -> None:
    accounts = FragileAccounts(POISON)
    hot, other = list_payments(HOT, 30, v20=POISON), list_payments(NEIGHBOURS[0], 5)
    reads.allowed.clear()
    async with projector(
        redis_url, nats_url, partitions=ALL_PARTITIONS, projection=accounts.projection, retries=QUICK
    ):
        await publisher.publish(*hot)
        await asyncio.wait_for(reads.waiting.wait(), 20)
        for event in other:
            await publisher.publish(event)
            await until(lambda: has_version(redis, NEIGHBOURS[0], event.version))  # noqa: B023 - awaited here
        accounts.poison.clear()
        reads.allowed.set()
        await until(lambda: is_complete(redis, hot, other))
    await assert_accounts(redis, hot, other)


async def test_other_aggregates_go_on_while_a_gap_is_closed(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, reads: Reads
) -> None:
    one, two = cheque_events("c-1"), cheque_events("c-2")
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await publisher.publish(*one[:2])
        await until(lambda: projection_run.has_applied(redis, [one[:2]]))
        await redis.delete(projection_run.VIEW.key("c-1"))
    reads.allowed.clear()
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await publisher.publish(one[2])
        await asyncio.wait_for(reads.waiting.wait(), 20)
        await publisher.publish(*two)
        await until(lambda: projection_run.has_applied(redis, [two]))
        reads.allowed.set()
        await until(lambda: projection_run.has_applied(redis, [one]))
        await until(lambda: is_unlisted(redis))


async def test_each_attempt_reads_on_behind_the_version_of_the_view(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, reads: Reads
) -> None:
    accounts = FragileAccounts(POISON)
    hot = list_payments(HOT, 2_000, v1800=POISON)
    await publish_all(publisher, hot)
    async with projector(
        redis_url, nats_url, partitions=ALL_PARTITIONS, projection=accounts.projection, retries=FEW
    ):
        await until(lambda: has_state(redis, "parked"))
        assert 1 <= reads.messages <= 2 * 201, "each of two replays reads versions 1,800 to 2,000"
        assert await read_version(redis) == 1_799


async def test_a_failing_replay_parks_again_and_keeps_its_progress(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    accounts = FragileAccounts(POISON, OTHER_POISON)
    hot = list_payments(HOT, 1_500, v400=POISON, v1200=OTHER_POISON)
    await publish_all(publisher, hot)
    async with projector(
        redis_url, nats_url, partitions=ALL_PARTITIONS, projection=accounts.projection, retries=QUICK
    ):
        await until(lambda: has_version(redis, HOT, 399))
        accounts.poison.remove(POISON)
        await until(lambda: has_version(redis, HOT, 1_199))
        assert await is_parked(redis)
        handled = accounts.handled
        accounts.poison.clear()
        await until(lambda: is_complete(redis, hot))
        assert accounts.handled - handled < 1_000, "events before the progress are not handled again"
    await assert_accounts(redis, hot)


async def test_events_that_arrive_during_a_replay_are_applied_once_and_in_order(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_slices, "MAX_SLICE", 7)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng, accounts = random.Random(seed), FragileAccounts(POISON)
    hot = list_payments(HOT, 600, v2=POISON)
    await publisher.publish(*hot[:300])
    async with projector(
        redis_url, nats_url, partitions=ALL_PARTITIONS, projection=accounts.projection, retries=QUICK
    ):
        await until(lambda: is_parked(redis))
        accounts.poison.clear()
        at = 300
        while at < len(hot):
            count = rng.randint(1, 4)
            await publisher.publish(*hot[at : at + count])
            at += count
            await asyncio.sleep(rng.choice([0, 0.001, 0.01]))  # load, not a wait for anything
        await until(lambda: is_complete(redis, hot))
    await assert_accounts(redis, hot)


async def test_an_event_that_is_skipped_just_before_the_unparking_is_applied(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replayer, "REFRESH_INTERVAL", 1e9)  # reading the list again would heal it later
    accounts, hot = FragileAccounts(POISON), list_payments(HOT, 4, v2=POISON)

    class LateStore(RedisStore):
        """Before the unparking, an event is published, and the session skips it."""

        async def write(self, updates: Any, *checkpoints: Any) -> Any:
            if any(each.before.parked and not each.after.parked for each in updates):
                await publisher.publish(hot[3])
                await until(lambda: has_passed(redis, 4))
            return await super().write(updates, *checkpoints)

    async with projector(
        redis_url,
        nats_url,
        partitions=ALL_PARTITIONS,
        projection=accounts.projection,
        retries=QUICK,
        store=LateStore,
    ):
        await publisher.publish(*hot[:3])
        await until(lambda: is_parked(redis))
        await until(lambda: has_passed(redis, 3))
        accounts.poison.clear()
        await until(lambda: is_complete(redis, hot))
    await assert_accounts(redis, hot)


async def test_two_projectors_that_replay_the_same_aggregate_do_no_harm(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    accounts = FragileAccounts(POISON)
    hot = list_payments(HOT, 1_500, v2=POISON)
    options: Any = {
        "partitions": ALL_PARTITIONS,
        "projection": accounts.projection,
        "retries": QUICK,
    }
    await publish_all(publisher, hot)
    async with projector(redis_url, nats_url, **options), projector(redis_url, nats_url, **options):
        await until(lambda: is_parked(redis))
        accounts.poison.clear()
        await until(lambda: is_complete(redis, hot))
    await assert_accounts(redis, hot)


@pytest.mark.parametrize("nth", [3, 6])
async def test_a_projector_killed_during_a_replay_is_replaced_and_the_progress_stays(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, nth: int
) -> None:
    accounts = FragileAccounts(POISON)
    hot = list_payments(HOT, 1_000, v2=POISON)
    options: Any = {"partitions": ALL_PARTITIONS, "projection": accounts.projection}
    await publish_all(publisher, hot)
    async with projector(redis_url, nats_url, **options, retries=QUICK) as first:
        await until(lambda: is_parked(redis))
        await first.stop()
    accounts.poison.clear()
    store = projection_run.dying_store("write", "after", nth)
    async with projector(redis_url, nats_url, **options, retries=QUICK, store=store) as dying:
        assert isinstance(await dying.wait_for_error(), Killed)
    progress = await read_version(redis)
    assert 1 < progress < len(hot)
    assert await is_parked(redis)
    accounts.handled = 0
    async with projector(redis_url, nats_url, **options, retries=QUICK):
        await until(lambda: is_complete(redis, hot))
    assert accounts.handled <= len(hot) - progress
    await assert_accounts(redis, hot)


async def test_a_rebuild_during_a_replay_applies_each_event_once(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, reads: Reads
) -> None:
    accounts = FragileAccounts(POISON)
    hot = list_payments(HOT, 1_000, v2=POISON)
    await publish_all(publisher, hot)
    async with projector(
        redis_url, nats_url, partitions=ALL_PARTITIONS, projection=accounts.projection, retries=QUICK
    ):
        await until(lambda: is_parked(redis))
        reads.waiting.clear()
        reads.allowed.clear()
        accounts.poison.clear()
        await asyncio.wait_for(reads.waiting.wait(), 20)
        await redis.delete(ACCOUNT.ready, ACCOUNT.build)
        reads.allowed.set()
        await until(lambda: redis.exists(ACCOUNT.ready))
        await until(lambda: is_complete(redis, hot))
    await assert_accounts(redis, hot)


async def test_many_parked_aggregates_are_all_replayed_and_a_short_one_waits_for_no_long_one(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    accounts, ended = FragileAccounts(POISON), list[str]()
    long = list_payments(HOT, 4_000, v2=POISON)
    short = [list_payments(name, 3, v2=POISON) for name in [f"a-{number}" for number in range(60)]]

    def observe(updates: Any) -> None:
        ended.extend(each.after.id for each in updates if each.before.parked and not each.after.parked)

    async with projector(
        redis_url,
        nats_url,
        partitions=ALL_PARTITIONS,
        projection=accounts.projection,
        retries=QUICK,
        observe=observe,
    ):
        await publish_all(publisher, long)
        await publisher.publish(*(event for history in short for event in history))
        await until(lambda: are_parked(redis, 61))
        accounts.poison.clear()
        await until(lambda: is_complete(redis, long, *short))
    assert ended.index(HOT) >= 10, "short replays end while the long one is under way"
    await assert_accounts(redis, long, *short)


@pytest.mark.long
async def test_a_replay_of_40000_events_delays_no_neighbour(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    accounts, seen = FragileAccounts(POISON), dict[int, float]()
    hot, other = list_payments(HOT, 40_000, v20000=POISON), list_payments(NEIGHBOURS[0], 10_000)
    sent, stopping = list[float](), asyncio.Event()

    def observe(updates: Sequence[Update]) -> None:
        for update in updates:
            if update.after.id == NEIGHBOURS[0]:
                seen.update((event.version, monotonic()) for event in update.applied_events)

    async def publish() -> None:
        while not stopping.is_set():
            sent.append(monotonic())
            await publisher.publish(other[len(sent) - 1])
            await asyncio.sleep(0.01)  # the rate of the events, not a wait for anything

    await publish_all(publisher, hot)
    async with projector(
        redis_url,
        nats_url,
        partitions=ALL_PARTITIONS,
        projection=accounts.projection,
        retries=QUICK,
        observe=observe,
    ):
        await until(lambda: redis.exists(ACCOUNT.ready))
        publishing = asyncio.create_task(publish())
        await until(lambda: len(seen) > 10)
        accounts.poison.clear()
        await until(lambda: is_complete(redis, hot), 60)
        stopping.set()
        await publishing
        await until(lambda: len(seen) == len(sent))
    lags = sorted(seen[version] - sent[version - 1] for version in seen)
    print(f"lag of {len(lags)} events: p50 {lags[len(lags) // 2]:.3f} s, maximum {lags[-1]:.3f} s")
    assert lags[-1] < 1.0
    await assert_accounts(redis, hot, other[: len(sent)])


async def test_a_slow_handler_gets_short_slices(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_slices, "FOLD_TIME", 0.0)  # every handler is slower than that
    accounts, sizes = FragileAccounts(POISON), list[int]()
    hot = list_payments(HOT, 250, v2=POISON)
    async with projector(
        redis_url,
        nats_url,
        partitions=ALL_PARTITIONS,
        projection=accounts.projection,
        retries=QUICK,
        observe=lambda updates: sizes.extend(len(update.applied_events) for update in updates),
    ):
        await publisher.publish(*hot)
        await until(lambda: is_parked(redis))
        accounts.poison.clear()
        await until(lambda: is_complete(redis, hot))
    assert max(sizes[-100:]) == 1
    await assert_accounts(redis, hot)


async def has_passed(redis: Redis, sequence: int) -> bool:
    """Return whether the checkpoint of the partition of HOT is at a sequence."""
    checkpoint: Any = await redis.hget(ACCOUNT.checkpoints, str(streams.partition(HOT)))
    return int(checkpoint.decode().partition("/")[2]) >= sequence


async def has_version(redis: Redis, account_id: str, version: int) -> bool:
    return await read_version(redis, account_id) >= version


async def has_state(redis: Redis, state: str) -> bool:
    record: Any = await redis.hget(ACCOUNT.parked, HOT)
    return record is not None and f'"state":"{state}"'.encode() in record


async def are_parked(redis: Redis, count: int) -> bool:
    return await redis.hlen(ACCOUNT.parked) == count


async def is_unlisted(redis: Redis) -> bool:
    return not await redis.exists(projection_run.VIEW.parked)
