"""Counters of events include each event exactly once, despite redelivery, concurrency and kills."""

import random
from typing import Any
from uuid import uuid4

import pytest
from diptych.banking.v1 import events_pb2 as events
from diptych.banking.v1 import types_pb2 as views
from redis.asyncio import Redis

from contracts import streams
from contracts.envelope import RecordedEvent
from projector.fold import fold
from projector.projections.banking.account_ledger import LEDGERS
from projector.records import Update
from projector.redis_store import RedisStore
from projector.retry_schedule import RetryPolicy
from tests.support.harness import projection_run
from tests.support.harness.projection_run import ALL_PARTITIONS, EventPublisher, Killed, projector
from tests.support.harness.waiting import until
from tests.support.models import accounts

VIEW = LEDGERS.view


async def read_event_counters(redis: Redis) -> dict[str, dict[str, int]]:
    """Return all counters, by day and name."""
    days: dict[str, dict[str, int]] = {}
    async for key in redis.scan_iter(match="event_counters:*", count=1_000):
        counters: Any = await redis.hgetall(key)
        day = key.decode().partition("{day/")[2].removesuffix("}")
        days[day] = {name.decode(): int(value) for name, value in counters.items()}
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
    histories = [accounts.make_random_account(rng, f"a-{n}", rng.randint(1, 9)).events for n in range(30)]
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
            projector(redis_url, nats_url, projection=LEDGERS, partitions=ALL_PARTITIONS, store=store) as one,
            projector(redis_url, nats_url, projection=LEDGERS, partitions=ALL_PARTITIONS, store=store) as two,
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
    async with projector(redis_url, nats_url, projection=LEDGERS, partitions=ALL_PARTITIONS):

        async def has_finished() -> bool:
            return await read_versions(redis, histories) == [len(history) for history in histories]

        await until(has_finished)
    assert await read_event_counters(redis) == accounts.sum_counters(
        event for history in histories for event in history
    )


async def test_a_rebuild_starts_all_counters_at_zero(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    account = accounts.make_random_account(random.Random(7), "a-1", 20)
    await publisher.publish(*account.events)

    async def has_finished() -> bool:
        return await read_versions(redis, [account.events]) == [20] and bool(await redis.exists(VIEW.ready))

    async with projector(redis_url, nats_url, projection=LEDGERS, partitions=ALL_PARTITIONS):
        await until(has_finished)
        await redis.delete(VIEW.build)
        await redis.hset(VIEW.event_counters("day", "2020-01-01"), "count/KIND_SENT/EUR", 5)  # a leftover
        await until(lambda: exists(redis, VIEW.build))
        await until(has_finished)
    assert await read_event_counters(redis) == accounts.sum_counters(account.events)


async def test_a_parked_account_counts_up_to_its_last_applied_event(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    account = accounts.Account("a-1")
    account.record(events.MoneyDeposited, 700)
    good = list(account.events)
    absurd = events.MoneyDeposited(account_id="a-1")
    absurd.amount.units = 2**62
    account._append(absurd, 0, 0)
    account.record(events.MoneyWithdrawn, 100)
    async with projector(
        redis_url,
        nats_url,
        projection=LEDGERS,
        partitions=ALL_PARTITIONS,
        retries=RetryPolicy(first_pause=60.0),
    ):
        await publisher.publish(*account.events)
        await until(lambda: redis.hexists(VIEW.parked, "a-1"))
        await until(lambda: exists(redis, VIEW.ready))
    assert await read_versions(redis, [good]) == [2]
    assert await read_event_counters(redis) == accounts.sum_counters(good)


async def test_a_full_event_counter_stops_no_other_write(redis: Redis) -> None:
    store = RedisStore(redis, VIEW)
    assert await store.read_build() is None
    await store.begin_build(str(uuid4()), "epoch")
    assert await store.read_build() is not None
    account = accounts.Account("a-1")
    account.record(events.MoneyDeposited, 700)
    key, full = VIEW.event_counters("day", "2026-01-30"), 2**63 - 5
    await redis.hset(key, "units/KIND_DEPOSITED/EUR", str(full))
    before = (await store.load(["a-1"]))["a-1"]
    result = fold(LEDGERS, before, account.events)
    update = Update(before, result.record, result.content, account.events, None, 0)
    assert await store.write([update]) == set()
    assert await store.write([update]) == {"a-1"}, "the second write is a conflict"
    assert await read_event_counters(redis) == {
        "2026-01-30": {
            "count/KIND_OPENED/EUR": 1,
            "count/KIND_DEPOSITED/EUR": 1,
            "units/KIND_DEPOSITED/EUR": full,
        }
    }
    data: Any = await redis.hget(VIEW.key("a-1"), "data")
    assert views.AccountLedger.FromString(data).version == 2
