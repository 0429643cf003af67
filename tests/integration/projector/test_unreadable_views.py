"""A stored view, record or checkpoint that cannot be read: its own view is folded again, all others go on."""

import pytest
from redis.asyncio import Redis

from contracts.view_layout import parse_checkpoint
from projector.redis_store import RedisStore
from tests.support.harness import projection_run
from tests.support.harness.projection_run import ALL_PARTITIONS, VIEW, EventPublisher, projector
from tests.support.harness.waiting import until
from tests.support.ledger.histories import cheque_events


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data", b"\xff\xff"),
        pytest.param("entries", b"{", marks=pytest.mark.long),
        pytest.param("entries", b"[[1]]", marks=pytest.mark.long),
        pytest.param("version", b"two", marks=pytest.mark.long),
        pytest.param("revision", b"-", marks=pytest.mark.long),
        pytest.param("counted", b"{", marks=pytest.mark.long),
    ],
)
async def test_a_view_that_cannot_be_read_is_folded_again_by_its_next_event(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, field: str, value: bytes
) -> None:
    one, two = cheque_events("c-1"), cheque_events("c-2")
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await publisher.publish(*one[:2], two[0])
        await until(lambda: projection_run.has_applied(redis, [one[:2], two[:1]]))
    await redis.hset(VIEW.key("c-1"), field, value)
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await publisher.publish(one[2], *two[1:])

        async def is_readable() -> bool:
            return await redis.hget(VIEW.key("c-1"), "version") == b"3"

        await until(is_readable)
        await until(lambda: projection_run.has_applied(redis, [one, two]))

        async def is_unparked() -> bool:
            return not await redis.hlen(VIEW.parked)

        await until(is_unparked)


@pytest.mark.long
@pytest.mark.parametrize("value", [b"{", b"[]", b'{"stream": 5}'])
async def test_a_parked_record_that_cannot_be_read_is_replayed(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, value: bytes
) -> None:
    one, two = cheque_events("c-1"), cheque_events("c-2")
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await publisher.publish(one[0], two[0])
        await until(lambda: projection_run.has_applied(redis, [one[:1], two[:1]]))
    await redis.hset(VIEW.parked, "c-1", value)
    await redis.hset(VIEW.key("c-1"), "parked", value)
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await publisher.publish(*one[1:], *two[1:])
        await until(lambda: projection_run.has_applied(redis, [one, two]))


@pytest.mark.long
async def test_a_checkpoint_that_cannot_be_read_is_the_start_of_the_stream(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    one = cheque_events("c-1")
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await publisher.publish(one[0])
        await until(lambda: projection_run.has_applied(redis, [one[:1]]))
    for partition, checkpoint in (await redis.hgetall(VIEW.checkpoints)).items():
        epoch, _ = parse_checkpoint(checkpoint)
        await redis.hset(VIEW.checkpoints, partition, f"{epoch}/x")
        assert parse_checkpoint(f"{epoch}/x".encode()) == (epoch, 0)
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await publisher.publish(*one[1:])
        await until(lambda: projection_run.has_applied(redis, [one]))


async def test_loading_shows_an_unreadable_view_and_the_others(redis: Redis) -> None:
    await redis.hset(VIEW.key("c-1"), mapping={"data": b"\xff", "version": 3, "revision": 4})
    records = await RedisStore(redis, VIEW).load(["c-1", "c-2"])
    assert (records["c-1"].version, records["c-1"].revision, bool(records["c-1"].error)) == (3, 4, True)
    assert (records["c-2"].version, records["c-2"].error) == (0, "")
