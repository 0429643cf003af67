"""A key of another type where the projector keeps something: that thing alone fails, all others go on."""

from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from projector.leases import RedisLeases
from runtime.process.settings import Settings
from tests.integration.projector.test_event_counters import read_event_counters
from tests.support.harness import projection_run
from tests.support.harness.parked_aggregates import retry
from tests.support.harness.projection_run import ALL_PARTITIONS, VIEW, EventPublisher, projector
from tests.support.harness.waiting import until
from tests.support.ledger.histories import cheque_events, day_counters, paid, recorded
from tests.support.ledger.projections import ACCOUNTS


@pytest.fixture(autouse=True)
def replays_begin_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projector.replayer.REFRESH_INTERVAL", 0.1)


async def replace_key(redis: Redis, key: str) -> None:
    """Put a list in the place of a key."""
    async with redis.pipeline() as pipe:  # at once: the projector would write it again in between
        pipe.delete(key)
        pipe.rpush(key, "x")
        await pipe.execute()


async def has_views(redis: Redis, *histories: Any) -> bool:
    try:
        await projection_run.assert_views(redis, histories)
    except (AssertionError, KeyError, ResponseError):
        return False
    return True


async def test_a_view_of_another_type_is_folded_again_and_counted_once(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    one, two = cheque_events("c-1"), cheque_events("c-2")
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await publisher.publish(*one[:2], two[0])
        await until(lambda: projection_run.has_applied(redis, [one[:2], two[:1]]))
        await replace_key(redis, VIEW.key("c-1"))
        await publisher.publish(*two[1:], one[2])
        await until(lambda: has_views(redis, one, two))


async def test_a_view_of_another_type_is_folded_again_by_an_operators_retry(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    one = cheque_events("c-1")
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await publisher.publish(*one)
        await until(lambda: projection_run.has_applied(redis, [one]))
        await replace_key(redis, VIEW.key("c-1"))
        assert await retry(Settings(redis_url=redis_url), VIEW, ["c-1"]) == 1
        await until(lambda: has_views(redis, one))


async def read_sums_and_indexes(redis: Redis, except_key: str) -> dict[str, Any]:
    contents: dict[str, Any] = {}
    async for key in redis.scan_iter(match="*"):
        name = key.decode()
        if name.startswith("index:") and name != except_key:
            contents[name] = await redis.zrange(name, 0, -1)
        if name.startswith("counters:") and name != except_key:
            contents[name] = await redis.hgetall(name)
    return contents


@pytest.mark.parametrize(
    "key",
    [
        VIEW.index("all"),
        VIEW.counters("account", "a-1"),
        VIEW.change_feed("account", "a-1"),
        pytest.param(VIEW.as_of, marks=pytest.mark.long),
        pytest.param(VIEW.parked, marks=pytest.mark.long),
        pytest.param(VIEW.ready, marks=pytest.mark.long),
    ],
)
async def test_derived_data_of_another_type_stops_no_view_and_a_rebuild_restores_it(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, key: str
) -> None:
    one, two = cheque_events("c-1"), cheque_events("c-2")
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await publisher.publish(one[0], two[0])
        await until(lambda: projection_run.has_applied(redis, [one[:1], two[:1]]))
        await replace_key(redis, key)
        await publisher.publish(*one[1:], *two[1:])
        await until(lambda: projection_run.has_applied(redis, [one, two]))
        others = await read_sums_and_indexes(redis, key)
        await redis.delete(VIEW.ready, VIEW.build)
        await until(lambda: has_views(redis, one, two))
        assert await read_sums_and_indexes(redis, key) == others


@pytest.mark.parametrize("key", [VIEW.checkpoints, pytest.param(VIEW.build, marks=pytest.mark.long)])
async def test_checkpoints_of_another_type_begin_another_build(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, key: str
) -> None:
    one = cheque_events("c-1")
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await publisher.publish(one[0])
        await until(lambda: projection_run.has_applied(redis, [one[:1]]))
        await replace_key(redis, key)
        await publisher.publish(*one[1:])
        await until(lambda: has_views(redis, one))


async def test_leases_of_another_type_are_free(redis: Redis) -> None:
    await replace_key(redis, "lease:ledger:3")
    await replace_key(redis, "projectors:ledger")
    leases = RedisLeases(redis, "ledger")
    await leases.renew()
    assert leases.partitions == frozenset(ALL_PARTITIONS)
    await replace_key(redis, "lease:ledger:4")
    await leases.leave()
    assert await redis.type("lease:ledger:4") == b"list"


async def test_a_history_of_another_type_is_written_again_and_no_event_counts_twice(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    events = [recorded(version, paid("a-1", 10 * version)) for version in range(1, 6)]
    view = ACCOUNTS.view
    async with projector(redis_url, nats_url, projection=ACCOUNTS, partitions=ALL_PARTITIONS):
        await publisher.publish(*events[:4])

        async def has_version(version: int) -> bool:
            fields: Any = await redis.hmget(view.key("a-1"), "version", "parked")
            return bool(fields == [str(version).encode(), None])

        await until(lambda: has_version(4))
        expected: Any = await redis.hgetall(view.history("a-1"))
        await replace_key(redis, view.history("a-1"))
        await redis.hset(view.key("a-1"), "data", b"\xff")
        assert await retry(Settings(redis_url=redis_url), view, ["a-1"]) == 1
        await until(lambda: has_version(4))
        assert await redis.hgetall(view.history("a-1")) == expected
        await publisher.publish(events[4])
        await until(lambda: has_version(5))
    assert await read_event_counters(redis) == day_counters([events])


async def test_an_operators_retry_corrects_a_view_that_differs_from_its_events(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    one = cheque_events("c-1")
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await publisher.publish(*one)
        await until(lambda: projection_run.has_applied(redis, [one]))
        await redis.hset(VIEW.key("c-1"), "data", VIEW.message(cheque_id="c-1").SerializeToString())
        assert not await has_views(redis, one)
        assert await retry(Settings(redis_url=redis_url), VIEW, ["c-1"]) == 1
        await until(lambda: has_views(redis, one))
