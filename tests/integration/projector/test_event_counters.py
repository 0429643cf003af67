"""Counters of events include each event exactly once, despite redelivery, concurrency and kills."""

import random
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from contracts import streams
from contracts.envelope import RecordedEvent
from projector.fold import fold
from projector.records import Update
from projector.redis_store import RedisStore
from projector.retry_schedule import RetryPolicy
from tests.support.harness import projection_run
from tests.support.harness.projection_run import ALL_PARTITIONS, EventPublisher, Killed, projector
from tests.support.harness.waiting import until
from tests.support.ledger.histories import START, day_counters, paid, random_payments, recorded
from tests.support.ledger.projections import ACCOUNTS
from tests.support.ledger.stubs import types as views

VIEW = ACCOUNTS.view
run = partial(projector, projection=ACCOUNTS, partitions=ALL_PARTITIONS)


async def read_event_counters(redis: Redis) -> dict[str, dict[str, int]]:
    """Return all counters, by key and name."""
    days: dict[str, dict[str, int]] = {}
    async for key in redis.scan_iter(match="event_counters:*", count=1_000):
        counters: Any = await redis.hgetall(key)
        days[key.decode()] = {name.decode(): int(value) for name, value in counters.items()}
    return days


async def exists(redis: Redis, key: str) -> bool:
    return bool(await redis.exists(key))


async def read_versions(redis: Redis, histories: list[list[RecordedEvent]]) -> list[int]:
    ids = [streams.aggregate_id(history[0].stream) for history in histories]
    return [int(await redis.hget(VIEW.key(id_), "version") or 0) for id_ in ids]


@pytest.mark.parametrize("_", range(3))
async def test_each_event_counts_once_despite_kills_doubles_and_redelivery(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, _: int
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    histories = [random_payments(rng, f"a-{n}", rng.randint(1, 9)) for n in range(30)]
    published = [event for history in histories for event in history]
    rng.shuffle(published)
    published.sort(key=lambda event: event.version + rng.random())
    published += rng.sample(published, 20)
    cuts = sorted(rng.sample(range(len(published)), 3))
    for start, end in zip([0, *cuts], [*cuts, len(published)], strict=True):
        await publisher.publish(*published[start:end])
        step, when = rng.choice(["load", "write"]), rng.choice(["before", "after"])
        store = projection_run.dying_store(step, when, rng.randint(1, 3))
        async with (
            projector(
                redis_url, nats_url, projection=ACCOUNTS, partitions=ALL_PARTITIONS, store=store
            ) as one,
            projector(
                redis_url, nats_url, projection=ACCOUNTS, partitions=ALL_PARTITIONS, store=store
            ) as two,
        ):
            last_versions = [
                max((e.version for e in history if e in published[:end]), default=0) for history in histories
            ]

            async def has_died_or_finished(expected: list[int] = last_versions) -> bool:
                tasks = [running.tasks[0] for running in (one, two)]
                if any(task.done() and isinstance(task.exception(), Killed) for task in tasks):
                    return True
                return await read_versions(redis, histories) == expected

            await until(has_died_or_finished)
    async with run(redis_url, nats_url):

        async def has_finished() -> bool:
            return await read_versions(redis, histories) == [len(history) for history in histories]

        await until(has_finished)
    assert await read_event_counters(redis) == day_counters(histories)


async def test_a_rebuild_starts_all_counters_at_zero(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    history = random_payments(random.Random(7), "a-1", 20)
    await publisher.publish(*history)

    async def has_finished() -> bool:
        return await read_versions(redis, [history]) == [20] and bool(await redis.exists(VIEW.ready))

    async with run(redis_url, nats_url):
        await until(has_finished)
        await redis.delete(VIEW.build)
        await redis.hset(VIEW.event_counters("day", "2020-01-01"), "count/KIND_PAID", 5)  # a leftover
        await until(lambda: exists(redis, VIEW.build))
        await until(has_finished)
    assert await read_event_counters(redis) == day_counters([history])


async def test_a_parked_account_counts_up_to_its_last_applied_event(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    amounts = (500, 700, 2**62, -100)
    history = [recorded(version, paid("a-1", amount)) for version, amount in enumerate(amounts, 1)]
    good = history[:2]
    async with run(
        redis_url,
        nats_url,
        retries=RetryPolicy(first_pause=60.0),
    ):
        await publisher.publish(*history)
        await until(lambda: redis.hexists(VIEW.parked, "a-1"))
        await until(lambda: exists(redis, VIEW.ready))
    assert await read_versions(redis, [good]) == [2]
    assert await read_event_counters(redis) == day_counters([good])


async def test_a_full_event_counter_stops_no_other_write(redis: Redis) -> None:
    store = RedisStore(redis, VIEW)
    assert await store.read_build() is None
    await store.begin_build(str(uuid4()), "epoch")
    assert await store.read_build() is not None
    history = [recorded(version, paid("a-1", amount), at=START) for version, amount in ((1, 700), (2, -300))]
    key, full = VIEW.event_counters("day", f"{START.date()}"), 2**63 - 5
    await redis.hset(key, "cents/KIND_RECEIVED", str(full))
    before = (await store.load(["a-1"]))["a-1"]
    result = fold(ACCOUNTS, before, history)
    update = Update(before, result.record, result.content, history, None, 0)
    assert await store.write([update]) == set()
    assert await store.write([update]) == {"a-1"}, "the second write is a conflict"
    assert await read_event_counters(redis) == {
        key: {
            "count/KIND_RECEIVED": 1,
            "count/KIND_PAID": 1,
            "cents/KIND_PAID": 300,
            "cents/KIND_RECEIVED": full,
        }
    }
    data: Any = await redis.hget(VIEW.key("a-1"), "data")
    assert views.Account.FromString(data).version == 2
