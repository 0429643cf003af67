"""A projector that lives and is stuck shows it: by what it has read, and by what its views may lack."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from devstack.servers import Valkey
from projector import session
from projector.leases import RedisLeases
from projector.metrics import OLDEST_UNAPPLIED, PARTITIONS_BUILDING, REDIS_MEMORY_USED, STALENESS
from projector.observer import observe_progress
from projector.redis_memory import watch_memory
from projector.runner import Progress, Runner
from runtime.telemetry.metrics import LEASES_LOST
from tests.support.harness import projection_run
from tests.support.harness.projection_run import ALL_PARTITIONS, EventPublisher, pausing_store, projector
from tests.support.harness.waiting import until
from tests.support.ledger.histories import cheque_events

NAME = ("ledger.cheque",)
GAUGES = (OLDEST_UNAPPLIED, STALENESS, PARTITIONS_BUILDING)


@pytest.fixture
def progress(monkeypatch: pytest.MonkeyPatch) -> list[Runner]:
    """The runners that begin, whose progress the gauges show."""
    runners: list[Runner] = []
    begin = Runner.__init__

    def keep(self: Runner, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        runners[:] = [self]

    monkeypatch.setattr(Runner, "__init__", keep)
    for gauge in GAUGES:
        gauge.clear()
    observe_progress(lambda: [runner.describe_progress() for runner in runners])
    return runners


def read_oldest() -> float | None:
    return OLDEST_UNAPPLIED.read_values().get(NAME)


async def test_an_event_that_is_read_and_not_written_grows_old(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, progress: list[Runner]
) -> None:
    one = cheque_events("c-1")
    async with projector(
        redis_url, nats_url, partitions=ALL_PARTITIONS, store=pausing_store("write")
    ) as running:
        store: Any = running.store
        await until(lambda: projection_run.is_ready(redis))
        assert read_oldest() is None
        await publisher.publish(one[0])
        await asyncio.wait_for(store.waiting.wait(), 20)
        await until(lambda: (read_oldest() or 0) > 0.3)
        store.proceed.set()
        await until(lambda: read_oldest() is None)
        await until(lambda: projection_run.has_applied(redis, [one[:1]]))


async def test_sessions_that_fail_again_and_again_hide_nothing(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, progress: list[Runner]
) -> None:
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS) as running:
        await until(lambda: projection_run.is_ready(redis))
        store: Any = running.store
        write, fails = store.write, True

        async def fail(*args: Any) -> set[str]:
            if fails:
                raise ConnectionError("Redis takes no writes")
            result: set[str] = await write(*args)
            return result

        store.write = fail
        await publisher.publish(*cheque_events("c-1"))
        await until(lambda: (read_oldest() or 0) > 1.0)
        assert STALENESS.read_values()[NAME] > 0.5
        fails = False
        await until(lambda: read_oldest() is None)
        await until(lambda: STALENESS.read_values()[NAME] < 1.5)


async def test_a_build_shows_the_partitions_that_are_missing_and_no_staleness(
    redis_url: str,
    nats_url: str,
    redis: Redis,
    publisher: EventPublisher,
    progress: list[Runner],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check = session.Session._check_stream
    held_up = asyncio.Event()

    async def check_later(self: session.Session) -> None:
        if held_up.is_set():
            await check(self)

    monkeypatch.setattr(session.Session, "_check_stream", check_later)
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await until(lambda: PARTITIONS_BUILDING.read_values().get(NAME) == 16)
        assert NAME not in STALENESS.read_values()
        held_up.set()
        await until(lambda: PARTITIONS_BUILDING.read_values() == {NAME: 0})
        await until(lambda: NAME in STALENESS.read_values())


async def test_a_projector_without_partitions_has_nothing_that_is_old(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, progress: list[Runner]
) -> None:
    async with projector(redis_url, nats_url, partitions=()):
        await until(lambda: bool(progress))
        assert progress[0].describe_progress() == Progress("ledger.cheque", None, None, 0)


async def test_leases_that_expire_are_counted_and_those_that_are_released_are_not(redis: Redis) -> None:
    LEASES_LOST.clear()
    first, second = RedisLeases(redis, "ledger"), RedisLeases(redis, "ledger")
    await first.renew()
    await second.renew()
    await first.renew()  # releases half of its partitions
    await second.renew()
    assert LEASES_LOST.sums == {(): 0}
    lost = sorted(first.partitions)[:2]
    await redis.delete(*(f"lease:ledger:{partition}" for partition in lost))  # as if they had expired
    for partition in lost:
        await redis.set(f"lease:ledger:{partition}", second._me)
    await first.renew()
    assert LEASES_LOST.sums == {(): 2}


async def test_the_memory_of_a_redis_that_was_killed_is_no_longer_shown(own_redis: Valkey) -> None:
    async with Redis.from_url(own_redis.url) as client:
        await client.config_set("maxmemory", 1_000_000_000)
        watching = asyncio.create_task(watch_memory(client, interval=0.02))
        await until(lambda: () in REDIS_MEMORY_USED.read_values())
        await own_redis.kill()
        await until(lambda: REDIS_MEMORY_USED.read_values() == {})
        await own_redis.start()
        watching.cancel()
