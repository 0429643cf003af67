"""Generations of a projection: built beside the one that serves, kept up to date, and pruned."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from contracts import streams
from contracts.generations import GenerationRecord, encode_record
from projector.event_feed import JetStreamEventFeed
from projector.generations import Generations
from projector.leases import RedisLeases
from projector.pace import Pace
from projector.ports import BuildSuperseded
from projector.projection import Projection
from projector.redis_connection import connect as connect_redis
from projector.redis_store import RedisStore
from projector.runner import Runner
from runtime.jetstream import PublicationClock, SharedReader, connect
from runtime.process.lifecycle import cancel_and_wait
from tests.support.harness import projection_run
from tests.support.harness.keys import get_ring
from tests.support.harness.projection_run import ALL_PARTITIONS, VIEW, EventPublisher
from tests.support.harness.waiting import until
from tests.support.ledger import histories
from tests.support.ledger.projections import CHEQUES

NEW = VIEW.at("2.1")


@asynccontextmanager
async def generations(redis_url: str, nats_url: str) -> AsyncIterator[Generations]:
    """Run all generations of the cheques, on all partitions."""
    async with (
        connect_redis(redis_url) as redis,
        await connect(nats_url, "projector", get_ring) as connection,
    ):
        await connection.wait_until_connected()
        leases = RedisLeases(redis, "ledger")
        leases._partitions = frozenset(ALL_PARTITIONS)
        publication = PublicationClock(connection)
        shared = SharedReader(connection, lambda: leases.partitions, publication)

        def create_runner(projection: Projection[Any], pace: Pace) -> Runner:
            store = RedisStore(redis, projection.view, "the code")
            feed = JetStreamEventFeed(connection, shared, projection.view.source_streams)
            return Runner(projection, store, feed, leases, pace=pace)

        running, stopping = Generations(redis, CHEQUES, create_runner, "the code"), asyncio.Event()
        beside = [asyncio.create_task(publication.run()), asyncio.create_task(shared.run())]
        task = asyncio.create_task(running.run(stopping))
        try:
            yield running
        finally:
            stopping.set()
            await task
            await cancel_and_wait(*beside)


async def read_views(redis: Redis, generation: str) -> dict[str, object]:
    """Return the stored content of all keys of a generation that hold views or what is derived from them.

    Of change feeds the members alone: how often a view was written depends on how events arrived.
    """
    view, contents = VIEW.at(generation), {}
    for pattern in view.patterns:
        async for key in redis.scan_iter(match=pattern, count=1_000):
            kind, name, _, rest = key.decode().split(":", 3)
            content: Any
            match kind:
                case "view":
                    content = await redis.hget(key, "data")
                case "change_feed":
                    content = set(await redis.zrange(key, 0, -1))
                case _:
                    content = await redis.dump(key)
            contents[f"{kind}:{name}:{rest}"] = content
    return contents


async def begin(redis: Redis, generation: str = "2.1", **record: Any) -> None:
    await redis.hset(VIEW.generations, generation, encode_record(GenerationRecord(0, **record)))


async def are_at(redis: Redis, generation: str, version: int, count: int) -> bool:
    """Return whether this many cheques have this version in a generation."""
    versions = [await redis.hget(VIEW.at(generation).key(f"c-{each}"), "version") for each in range(count)]
    return versions == [str(version).encode()] * count


async def test_a_generation_is_built_and_kept_beside_the_one_that_serves(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    cheques = [histories.cheque_events(f"c-{number}") for number in range(20)]
    await publisher.publish(*(event for events in cheques for event in events[:-1]))
    async with generations(redis_url, nats_url) as running:
        await until(lambda: redis.exists(VIEW.ready))
        await begin(redis)
        await until(lambda: redis.exists(NEW.ready))
        assert await redis.get(NEW.code) == b"the code"
        assert await read_views(redis, "2.1") == await read_views(redis, "2") != {}
        await redis.set(VIEW.serving, "2.1")
        await until(lambda: running.serving == "2.1")
        await publisher.publish(*(events[-1] for events in cheques))  # the other one has no record any more
        await until(lambda: are_at(redis, "2.1", cheques[0][-1].version, 20))


async def test_both_are_kept_until_one_is_pruned_and_a_pruned_one_stays_away(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    cheques = [histories.cheque_events(f"c-{number}") for number in range(20)]
    await publisher.publish(*(event for events in cheques for event in events[:1]))
    async with generations(redis_url, nats_url) as running:
        await begin(redis)
        await until(lambda: redis.exists(NEW.ready))
        await publisher.publish(*(events[1] for events in cheques))
        for generation in ("2", "2.1"):
            await until(lambda generation=generation: are_at(redis, generation, 2, 20))  # type: ignore[misc]
        await redis.hdel(VIEW.generations, "2.1")
        await redis.delete(*NEW.state_keys)
        await until(lambda: "2.1" not in running._running)
        for pattern in NEW.patterns:
            async for key in redis.scan_iter(match=pattern):
                await redis.delete(key)
        await publisher.publish(*(event for events in cheques for event in events[2:]))
        await until(lambda: are_at(redis, "2", cheques[0][-1].version, 20))
        assert not [key async for key in redis.scan_iter(match="*:ledger.cheque:2.1*")]


async def test_nobody_begins_a_build_of_a_generation_without_record(redis: Redis) -> None:
    store = RedisStore(redis, NEW)
    assert await store.read_build() is None
    with pytest.raises(BuildSuperseded):
        await store.begin_build(str(uuid4()), "epoch")
    assert await redis.keys() == []
    await redis.set(VIEW.serving, "2.1")
    await store.begin_build(str(uuid4()), "epoch")
    assert len(await redis.hgetall(NEW.checkpoints)) == streams.PARTITIONS


async def test_a_paused_build_goes_on_when_it_is_resumed(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    cheques = [histories.cheque_events(f"c-{number}") for number in range(20)]
    await publisher.publish(*(event for events in cheques for event in events))
    async with generations(redis_url, nats_url):
        await until(lambda: redis.exists(VIEW.ready))
        await begin(redis, paused="by ops")
        await until(lambda: redis.exists(NEW.checkpoints))
        await publisher.publish(*histories.cheque_events("c-20"))
        await until(lambda: are_at(redis, "2", cheques[0][-1].version, 21))
        assert not await redis.exists(NEW.ready)
        await begin(redis)
        await until(lambda: redis.exists(NEW.ready))
        assert await projection_run.read_version(redis, "c-20") == cheques[0][-1].version


async def test_keys_of_other_types_and_unreadable_records_stop_no_generation(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    await redis.lpush(VIEW.serving, "no string")
    await redis.lpush(VIEW.generations, "no hash")
    await publisher.publish(*histories.cheque_events("c-0"))
    async with generations(redis_url, nats_url):
        await until(lambda: are_at(redis, "2", 3, 1))
        await redis.delete(VIEW.serving, VIEW.generations)
        await begin(redis)
        await until(lambda: redis.exists(NEW.ready))
        await redis.hset(VIEW.generations, "2.1", "no record")
        await publisher.publish(*histories.cheque_events("c-1"))
        for generation in ("2", "2.1"):
            await until(lambda generation=generation: are_at(redis, generation, 3, 2))  # type: ignore[misc]


async def test_builds_pause_while_redis_is_nearly_full(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    percents = [100]

    async def read_used_percent(_redis: Redis) -> int:
        return percents[-1]

    monkeypatch.setattr("projector.generations.read_used_percent", read_used_percent)
    await publisher.publish(*histories.cheque_events("c-0"))
    async with generations(redis_url, nats_url) as running:
        await begin(redis, paused="until it is full")
        await until(lambda: "2.1" in running._running and running._running["2.1"].pace.lacks_memory)
        await begin(redis)
        await publisher.publish(*histories.cheque_events("c-1"))
        await until(lambda: are_at(redis, "2", 3, 2))
        assert not await redis.exists(NEW.ready)
        percents.append(10)
        await until(lambda: redis.exists(NEW.ready))
