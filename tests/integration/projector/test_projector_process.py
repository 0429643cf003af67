"""Projector processes: they share the partitions, and are killed, stopped and cut off from their servers."""

import asyncio
import io
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest
from redis.asyncio import Redis

from contracts.envelope import RecordedEvent
from devstack.processes import Process
from devstack.servers import Nats, Valkey
from devstack.tcp_ports import free_port
from operations.processes import PROJECTOR, check_health
from projector import metrics, observer
from projector.redis_connection import connect
from runtime.process import logs
from runtime.process.settings import Settings
from tests.integration.projector.test_event_counters import read_event_counters
from tests.support.harness import projection_run
from tests.support.harness.keys import ring_file
from tests.support.harness.log_lines import parse_log_line
from tests.support.harness.parked_aggregates import retry
from tests.support.harness.projection_run import ALL_PARTITIONS, VIEW, EventPublisher, projector
from tests.support.harness.waiting import until
from tests.support.ledger.histories import cheque_events, day_counters, paid, recorded, written
from tests.support.ledger.installation import ENVIRONMENT
from tests.support.ledger.projections import ACCOUNTS

GROUP = "ledger"
"""The projectors that run the ledger alone."""


class ProjectorProcess:
    """A process `python -m projector`, and its output lines."""

    def __init__(self, redis_url: str, nats_url: str) -> None:
        self.lines: list[str] = []
        urls = {
            "DIPTYCH_REDIS_URL": redis_url,
            "DIPTYCH_NATS_URL": nats_url,
            "DIPTYCH_KEYS": str(ring_file()),
        }
        environment, address = os.environ | ENVIRONMENT | urls, f"127.0.0.1:{free_port()}"
        self.process = Process(PROJECTOR, "projector", address, environment, self.lines.append)

    def find_log_lines(self, message: str) -> list[dict[str, Any]]:
        lines = map(parse_log_line, self.lines)
        return [line for line in lines if line["message"] == message]


@asynccontextmanager
async def running(redis_url: str, nats_url: str, ready: bool = True) -> AsyncIterator[ProjectorProcess]:
    process = ProjectorProcess(redis_url, nats_url)
    await process.process.start(ready)
    try:
        yield process
    finally:
        if process.process.child.running:
            await process.process.kill()


async def read_shares(redis: Redis) -> list[int]:
    """Return the number of partitions of each projector, in ascending order."""
    counts: dict[Any, int] = {}
    for holder in await redis.mget([f"lease:{GROUP}:{partition}" for partition in range(16)]):
        if holder:
            counts[holder] = counts.get(holder, 0) + 1
    return sorted(counts.values())


async def publish_slowly(
    publisher: EventPublisher, histories: Sequence[Sequence[RecordedEvent]], stop: asyncio.Event
) -> None:
    """Publish all first events, then all second ones, then all third ones, four at a time."""
    for n in range(3):
        for at in range(0, len(histories), 4):
            await publisher.publish(*(history[n] for history in histories[at : at + 4]))
            if not stop.is_set():
                await asyncio.sleep(0.02)


@pytest.mark.long
async def test_partitions_follow_joins_and_deaths_within_ten_seconds(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    histories = [cheque_events(f"c-{n}", f"a-{n % 9}", n % 60) for n in range(400)]
    stop = asyncio.Event()
    publishing = asyncio.create_task(publish_slowly(publisher, histories, stop))
    durations = []
    async with running(redis_url, nats_url) as first:
        await until(lambda: are_shares(redis, [16]))
        began = monotonic()
        async with running(redis_url, nats_url, ready=False) as second:
            await until(lambda: are_shares(redis, [8, 8]), 10)
            durations.append(monotonic() - began)
            await first.process.kill()
            began = monotonic()
            await until(lambda: are_shares(redis, [16]), 10)
            durations.append(monotonic() - began)
            async with running(redis_url, nats_url) as third:
                await until(lambda: are_shares(redis, [8, 8]), 10)
                began = monotonic()
                assert await second.process.stop() == 0
                await until(lambda: are_shares(redis, [16]), 10)
                durations.append(monotonic() - began)
                stop.set()
                await publishing
                await until(lambda: projection_run.has_applied(redis, histories))
                log_lines = [
                    line
                    for process in (first, second, third)
                    for line in process.find_log_lines("Read model updated")
                ]
                assert {line["recordId"] for line in log_lines} == {f"c-{n}" for n in range(400)}
    await projection_run.assert_views(redis, histories)
    assert durations[2] < durations[1], "released partitions are free at once"


async def are_shares(redis: Redis, expected: list[int]) -> bool:
    return await read_shares(redis) == expected


async def test_a_projector_starts_before_its_servers_and_outlives_them(
    own_redis: Valkey, own_nats: Nats
) -> None:
    one = cheque_events("c-1")
    await own_redis.stop()
    await own_nats.stop()
    async with running(own_redis.url, own_nats.url, ready=False) as process:
        address = process.process.address
        await until(lambda: is_health(address, "NOT_SERVING"))
        await own_redis.start()
        await own_nats.start()
        await process.process.wait_serving(20)
        async with projection_run.publisher(own_nats.url) as publisher, connect(own_redis.url) as redis:
            await publisher.create()
            await publisher.publish(one[0])
            await until(lambda: projection_run.has_applied(redis, [one[:1]]))
            await own_redis.kill()
            await publisher.publish(one[1])
            await until(lambda: is_health(address, "NOT_SERVING"))
            await own_redis.start()
            await until(lambda: projection_run.has_applied(redis, [one[:2]]))
            await own_nats.kill()
            await until(lambda: is_health(address, "NOT_SERVING"))
            await own_nats.start()
            await until(lambda: publisher.connection.connected)
            await publisher.publish(one[2])
            await until(lambda: projection_run.is_complete(redis, [one]))
            await projection_run.assert_views(redis, [one])
            await until(lambda: is_health(address, "SERVING"))
            assert process.find_log_lines("Aggregate parked") == []
        assert await process.process.stop() == 0


async def is_health(address: str, expected: str) -> bool:
    health = await check_health(address)
    if health != expected:
        await asyncio.sleep(0.1)
    return health == expected


async def test_a_stopped_projector_releases_its_partitions_at_once(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    async with running(redis_url, nats_url) as process:
        await until(lambda: are_shares(redis, [16]))
        assert await process.process.stop() == 0
    assert await read_shares(redis) == []
    assert await redis.zcard(f"projectors:{GROUP}") == 0


@pytest.mark.long
async def test_a_process_stops_within_seconds_during_a_replay_of_20000_events(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    view, history = ACCOUNTS.view, [recorded(number, paid("a-1", number)) for number in range(1, 20_001)]
    for at in range(0, len(history), 2_000):
        await publisher.publish(*history[at : at + 2_000])

    async def is_complete() -> bool:
        fields: Any = await redis.hmget(view.key("a-1"), "version", "parked")
        return bool(fields == [b"20000", None]) and not await redis.hlen(view.parked)

    async def read_revision() -> int:
        return int(await redis.hget(view.key("a-1"), "revision") or 0)

    async with running(redis_url, nats_url) as first:
        await until(is_complete, 60)
        assert await retry(Settings(redis_url=redis_url), view, ["a-1"]) == 1
        begin = await read_revision()

        async def is_under_way() -> bool:
            return await read_revision() >= begin + 20

        await until(is_under_way)
        began = monotonic()
        assert await first.process.stop() == 0
        duration = monotonic() - began
    assert not await is_complete(), "the replay was under way"
    print(f"stopped after {duration:.1f} s, {await read_revision() - begin} slices written")
    assert duration < 10
    async with running(redis_url, nats_url):
        await until(is_complete, 60)
    assert await redis.hlen(view.history("a-1")) == 20_000
    assert await read_event_counters(redis) == day_counters([history])


async def test_a_redis_that_may_evict_views_ends_the_start_in_one_line(
    own_redis: Valkey, nats_url: str
) -> None:
    async with Redis.from_url(own_redis.url) as client:
        await client.config_set("maxmemory-policy", "allkeys-lru")
    async with running(own_redis.url, nats_url, ready=False) as process:
        assert await process.process.child.wait_ended() == 1
    errors = [line for line in process.lines if not line.startswith("{")]
    assert errors == ["projector: Redis must run with maxmemory-policy noeviction, not allkeys-lru"]


async def test_a_redis_that_forbids_config_is_accepted_with_a_warning(
    own_redis: Valkey, nats_url: str
) -> None:
    async with Redis.from_url(own_redis.url) as client:
        await client.acl_setuser(
            "default", categories=["+@all"], commands=["-config"], keys=["*"], enabled=True
        )
    async with running(own_redis.url, nats_url) as process:
        warnings = process.find_log_lines("Redis forbids CONFIG GET; its maxmemory-policy must be noeviction")
        assert len(warnings) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "not a url"])
async def test_a_malformed_redis_url_ends_the_start_in_one_line(nats_url: str, url: str) -> None:
    async with running(url, nats_url, ready=False) as process:
        assert await process.process.child.wait_ended() == 2
    assert len(process.lines) == 1
    assert process.lines[0].startswith("settings: DIPTYCH_REDIS_URL: ")


async def test_every_write_is_logged_with_the_last_events_id_and_the_lag(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    one, lines = cheque_events("c-1"), io.BytesIO()
    logs.configure("info", "json", lines)
    await publisher.publish(*one)
    try:
        async with projector(
            redis_url, nats_url, partitions=ALL_PARTITIONS, observe=observer.create_observer(VIEW)
        ):
            await until(lambda: projection_run.has_applied(redis, [one]))
            await until(lambda: b"Read model updated" in lines.getvalue())  # logged after the write
    finally:
        logs.configure()
    log_lines = [json.loads(line) for line in lines.getvalue().splitlines()]
    (line,) = [line for line in log_lines if line["message"] == "Read model updated"]
    assert line["modelType"] == "acme.ledger.v1.Cheque"
    assert (line["recordId"], line["eventId"]) == ("c-1", "ledger.cheque.c-1@3")
    assert 0 < line["lag"] < 60_000


async def test_each_sampled_event_has_a_consumer_span_and_others_have_none(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans: list[dict[str, Any]] = []
    counted = metrics.EVENTS_PROCESSED
    counted.clear()
    monkeypatch.setattr(
        "runtime.telemetry.tracing.record_span", lambda name, **fields: spans.append({"name": name, **fields})
    )
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    history = [recorded(1, written("c-1"), traceparent=parent), *cheque_events("c-1")[1:]]
    async with projector(
        redis_url, nats_url, partitions=ALL_PARTITIONS, observe=observer.create_observer(VIEW)
    ):
        await until(lambda: redis.exists(VIEW.ready))  # a build adds no spans
        await publisher.publish(*history)
        await until(lambda: projection_run.has_applied(redis, [history]))
        await until(lambda: sum(counted.sums.values()) >= len(history))  # counted after the write
    (span,) = spans
    assert (span["name"], span["parent"], span["kind"].name) == ("process DIPTYCH", parent, "CONSUMER")
    assert span["attributes"]["messaging.message.id"] == "ledger.cheque.c-1@1"
    assert span["start_ns"] < span["end_ns"]
    assert counted.sums == Counter((event.type, True) for event in history)
