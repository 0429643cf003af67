"""Faults: projectors that are killed, doubled or late, and a Redis or a stream that is replaced."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any
from uuid import uuid4

import pytest
from nats.js.errors import NotFoundError
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from contracts.view_layout import parse_checkpoint
from projector import session
from projector.fold import fold
from projector.ports import BuildSuperseded
from projector.projection import Projection
from projector.records import Record, Update
from projector.redis_connection import connect as connect_redis
from projector.redis_store import RedisStore
from projector.replayer import Replayer
from projector.retry_schedule import RetryPolicy, RetrySchedule
from projector.writer import Writer
from tests.support.harness import projection_run
from tests.support.harness.projection_run import (
    ALL_PARTITIONS,
    INCARNATION_ID,
    VIEW,
    EventPublisher,
    Killed,
    projector,
)
from tests.support.harness.stray_errors import no_stray_errors
from tests.support.harness.waiting import until
from tests.support.ledger.events import EVENTS
from tests.support.ledger.histories import cheque_events, recorded, voided, written
from tests.support.ledger.projections import CHEQUES
from tests.support.ledger.stubs import events
from tests.support.ledger.stubs import types as views

ONE, TWO, THREE = cheque_events("c-1"), cheque_events("c-2", "a-2", 1), cheque_events("c-3", "a-1", 2)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["read_build", "load_parked", "load", "write", "advance"])
async def test_a_projector_killed_between_any_two_steps_loses_no_event(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, step: str, when: str
) -> None:
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS) as running:
        await publisher.publish(ONE[0], TWO[0])
        await until(lambda: projection_run.has_applied(redis, [ONE[:1], TWO[:1]]))
        await running.stop()
    await publisher.publish(ONE[1], TWO[1], THREE[0], ONE[2])
    store = projection_run.dying_store(step, when)
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, store=store) as dying:
        assert isinstance(await dying.wait_for_error(), Killed)
    histories = [ONE, TWO[:2], THREE[:1]]
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await until(lambda: projection_run.is_complete(redis, histories))
    await projection_run.assert_views(redis, histories)


@pytest.mark.parametrize(
    ("step", "when"), [("_clear", "before"), ("_clear", "after"), ("begin_build", "after")]
)
async def test_a_projector_killed_while_clearing_is_replaced_by_another(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, step: str, when: str
) -> None:
    await publisher.publish(*ONE)
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await until(lambda: projection_run.has_applied(redis, [ONE]))
    await redis.set(VIEW.key("ghost"), "of another build")
    await redis.delete(VIEW.build)
    async with projector(
        redis_url, nats_url, partitions=ALL_PARTITIONS, store=projection_run.dying_store(step, when)
    ) as dying:
        assert isinstance(await dying.wait_for_error(), Killed)
    assert not await projection_run.is_ready(redis)
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await until(lambda: projection_run.is_ready(redis))
    await projection_run.assert_views(redis, [ONE])


async def test_two_projectors_on_the_same_partitions_do_no_harm(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    histories = [cheque_events(f"c-{n}", f"a-{n % 7}", n % 60) for n in range(150)]
    async with (
        projector(redis_url, nats_url, partitions=ALL_PARTITIONS),
        projector(redis_url, nats_url, partitions=ALL_PARTITIONS),
    ):
        for n in range(3):
            await publisher.publish(*(history[n] for history in histories))
        await until(lambda: projection_run.is_complete(redis, histories))
    await projection_run.assert_views(redis, histories)


def index_reason(cheque: Any) -> list[tuple[str, str]]:
    return [(VIEW.index("reason", cheque.void_reason), "c-1")]


REASONS = Projection[Any](VIEW, events=EVENTS, indexes=index_reason)


@REASONS.on(events.ChequeVoided)
def set_reason(cheque: Any, event: Any) -> None:
    cheque.void_reason = event.reason


@pytest.mark.parametrize("step", ["write", "advance"])
async def test_a_late_projector_undoes_no_newer_version(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, step: str
) -> None:
    history = [recorded(n, voided("c-1", reason)) for n, reason in enumerate("ababab", 1)]
    await publisher.publish(*history[:2])
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, projection=REASONS):
        await until(lambda: projection_run.has_applied(redis, [history[:2]]))
    await publisher.publish(history[2])  # would remove the index entry of b
    late_store = projection_run.pausing_store(step)
    async with projector(
        redis_url, nats_url, partitions=ALL_PARTITIONS, projection=REASONS, store=late_store
    ) as late:
        pause: Any = late.store
        await asyncio.wait_for(pause.waiting.wait(), 20)
        async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, projection=REASONS) as prompt:
            await publisher.publish(history[3])
            await until(lambda: projection_run.has_applied(redis, [history[:4]]))
            await prompt.stop()
        before = await projection_run.read_indexes(redis)
        assert before == {"index:ledger.cheque:2:{reason/b}": {"c-1"}}
        pause.proceed.set()
        await asyncio.wait_for(pause.finished.wait(), 20)
        assert await projection_run.read_version(redis, "c-1") == 4
        assert await projection_run.read_indexes(redis) == before
        await publisher.publish(history[4])
        await until(lambda: projection_run.has_applied(redis, [history[:5]]))
    assert await projection_run.read_indexes(redis) == {"index:ledger.cheque:2:{reason/a}": {"c-1"}}


@asynccontextmanager
async def create_writer(redis_url: str) -> AsyncIterator[tuple[RedisStore, Writer]]:
    """A writer of cheques in an empty build."""
    async with connect_redis(redis_url) as redis:
        store = RedisStore(redis, VIEW)
        await store.read_build()
        await store.begin_build(INCARNATION_ID, "epoch")
        await store.read_build()
        yield store, Writer(CHEQUES, store, RetryPolicy(), lambda _: None, RetrySchedule(lambda _: False))


async def test_a_full_redis_refuses_a_write_that_would_first_remove_an_index_entry(
    redis_url: str, redis: Redis
) -> None:
    async with create_writer(redis_url) as (_, writer):
        await writer.write(await writer.fold([*ONE[:1], *TWO[:1]]))
        before = await projection_run.read_indexes(redis)
        batch = await writer.fold([ONE[1], TWO[1]])
        await redis.config_set("maxmemory", 1)
        try:
            with pytest.raises(ResponseError, match="OOM"):
                await writer.write(batch)
        finally:
            await redis.config_set("maxmemory", 0)
        assert await projection_run.read_indexes(redis) == before
        assert [await projection_run.read_version(redis, name) for name in ("c-1", "c-2")] == [1, 1]
        await writer.write(batch)
    await projection_run.assert_views(redis, [ONE[:2], TWO[:2]])


async def test_an_index_of_another_type_is_reported_for_each_view_of_the_batch(
    redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = list[tuple[str, str]]()
    async with create_writer(redis_url) as (store, writer):
        await redis.rpush(key := VIEW.index("all"), "x")

        def report(**fields: str) -> None:
            reports.append((fields["recordId"], fields["key"]))

        monkeypatch.setattr(store._failed_writes, "report", report)
        await writer.write(await writer.fold([ONE[0], TWO[0], THREE[0]]))
        assert sorted(reports) == [("c-1", key), ("c-2", key), ("c-3", key)]
        assert [await projection_run.read_version(redis, f"c-{n}") for n in (1, 2, 3)] == [1, 1, 1]


async def test_a_flushed_redis_is_rebuilt_without_new_events(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    await publisher.publish(*ONE, *TWO[:2])
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await until(lambda: projection_run.is_ready(redis))
        await redis.flushall()
        await until(lambda: projection_run.is_ready(redis))
        await projection_run.assert_views(redis, [ONE, TWO[:2]])


async def test_a_redis_flushed_under_load_loses_no_event(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    histories = [cheque_events(f"c-{n}", f"a-{n % 5}", n % 60) for n in range(200)]
    async with (
        projector(redis_url, nats_url, partitions=range(8)),
        projector(redis_url, nats_url, partitions=range(8, 16)),
    ):
        for n in range(3):
            for at in range(0, len(histories), 20):
                await publisher.publish(*(history[n] for history in histories[at : at + 20]))
                if at in (60, 140):
                    await redis.flushall()
        await until(lambda: projection_run.is_complete(redis, histories))
        await until(lambda: projection_run.is_ready(redis))
    await projection_run.assert_views(redis, histories)


async def test_a_projector_frozen_before_a_flush_writes_nothing_after_it(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    await publisher.publish(ONE[0])
    async with projector(
        redis_url, nats_url, partitions=ALL_PARTITIONS, store=projection_run.pausing_store("write")
    ) as frozen:
        pause: Any = frozen.store
        await asyncio.wait_for(pause.waiting.wait(), 20)
        await redis.flushall()
        await publisher.publish(ONE[1])
        async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS) as other:
            await until(lambda: projection_run.has_applied(redis, [ONE[:2]]))
            await until(lambda: projection_run.is_ready(redis))
            build = await redis.get(VIEW.build)
            await other.stop()
        pause.proceed.set()
        await publisher.publish(ONE[2])
        await until(lambda: projection_run.is_complete(redis, [ONE]))
    assert await redis.get(VIEW.build) == build
    await projection_run.assert_views(redis, [ONE])


async def test_nothing_is_written_to_another_build_than_was_read(redis: Redis) -> None:
    old, new = RedisStore(redis, VIEW), RedisStore(redis, VIEW)
    for store in (old, new):
        assert await store.read_build() is None
        await store.begin_build(str(uuid4()), "epoch")
        assert await store.read_build() is not None
        await redis.delete(VIEW.build)
    await new.read_build()
    await new.begin_build(INCARNATION_ID, "epoch")
    result = fold(CHEQUES, Record("c-1", views.Cheque()), ONE[:1])
    update = Update(Record("c-1", views.Cheque()), result.record, result.content, ONE[:1], None, 0)
    with pytest.raises(BuildSuperseded):
        await old.write([update])
    with pytest.raises(BuildSuperseded):
        await old.advance({0: ("epoch/0", "epoch/1")}, {0: 1})
    assert set(await redis.keys()) == {key.encode() for key in (VIEW.build, VIEW.checkpoints, VIEW.code)}
    assert set(await redis.hvals(VIEW.checkpoints)) == {b"epoch/0"}


async def test_checkpoints_advance_with_the_views_or_not_at_all(redis: Redis) -> None:
    store = RedisStore(redis, VIEW)
    assert await store.read_build() is None
    await store.begin_build(INCARNATION_ID, "epoch")
    assert await store.read_build()
    blank = Record("c-1", views.Cheque())
    first, second = fold(CHEQUES, blank, ONE[:1]), fold(CHEQUES, blank, ONE[:2])
    update = Update(blank, first.record, first.content, ONE[:1], None, 0)
    with pytest.raises(BuildSuperseded):
        await store.write([update], {0: ("epoch/1", "epoch/2")})
    assert await projection_run.read_version(redis, "c-1") == 0
    assert await store.write([update], {0: ("epoch/0", "epoch/1")}, {0: 7}) == set()
    assert (await redis.hget(VIEW.checkpoints, "0"), await redis.hgetall(VIEW.as_of)) == (
        b"epoch/1",
        {b"0": b"7"},
    )
    await store.advance({0: ("epoch/1", "epoch/1"), 1: ("epoch/0", "epoch/0")}, {0: 0, 1: 0})
    assert await redis.hgetall(VIEW.as_of) == {b"0": b"7", b"1": b"0"}  # 0, unknown, replaces no time
    late = Update(blank, second.record, second.content, ONE[:2], None, 0)
    assert await store.write([late], {0: ("epoch/1", "epoch/2")}, {0: 8}) == {"c-1"}
    assert (await redis.hget(VIEW.checkpoints, "0"), await redis.hgetall(VIEW.as_of)) == (
        b"epoch/1",
        {b"0": b"7", b"1": b"0"},
    )


async def test_a_redis_restored_from_a_backup_catches_up(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await publisher.publish(ONE[0], TWO[0])
        await until(lambda: projection_run.is_ready(redis))
        await until(lambda: projection_run.has_applied(redis, [ONE[:1], TWO[:1]]))
        earlier: dict[Any, Any] = {key: await redis.dump(key) async for key in redis.scan_iter()}
        await publisher.publish(*ONE[1:], TWO[1])
        await until(lambda: projection_run.has_applied(redis, [ONE, TWO[:2]]))
        async with redis.pipeline(transaction=True) as pipe:
            pipe.flushall()
            for key, value in earlier.items():
                pipe.restore(key, 0, value)
            await pipe.execute()
        await until(lambda: projection_run.is_complete(redis, [ONE, TWO[:2]]))
    await projection_run.assert_views(redis, [ONE, TWO[:2]])


async def test_a_stream_of_a_new_epoch_is_read_again_and_the_views_stay(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await publisher.publish(*ONE, TWO[0])
        await until(lambda: projection_run.has_applied(redis, [ONE, TWO[:1]]))
        await until(lambda: projection_run.is_ready(redis))
        before = await projection_run.read_view(redis, "c-1")
        await publisher.delete()
        await publisher.create(complete=False)
        await publisher.publish(*TWO[:2], *ONE)
        await publisher.mark_complete()
        await until(lambda: projection_run.has_applied(redis, [ONE, TWO[:2]]))
        await until(lambda: have_epoch(redis, publisher.epoch))
        assert await projection_run.is_ready(redis)
    assert await projection_run.read_view(redis, "c-1") == before
    await projection_run.assert_views(redis, [ONE, TWO[:2]])


async def test_another_database_incarnation_rebuilds_the_projection(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    restored = str(uuid4())
    other = [recorded(1, written("c-1", "a-9")), recorded(2, voided("c-1"))]
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await publisher.publish(*ONE[:2], *TWO)
        await until(lambda: projection_run.is_ready(redis))
        await publisher.delete()
        await publisher.create(complete=False, incarnation=restored)
        await until(lambda: is_not_ready(redis))
        await publisher.publish(*other)
        await until(lambda: projection_run.has_applied(redis, [other]))
        assert not await projection_run.is_ready(redis)
        await publisher.mark_complete(restored)
        await until(lambda: projection_run.is_ready(redis))
    assert await redis.get(VIEW.ready) == restored.encode()
    await projection_run.assert_views(redis, [other])


async def test_ready_requires_that_all_partitions_read_a_complete_stream(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    await publisher.delete()
    await publisher.create(complete=False)
    histories = [cheque_events(f"c-{n}") for n in range(40)]
    first, second = range(5), range(5, 16)
    await publisher.publish(*(event for history in histories for event in history))
    async with projector(redis_url, nats_url, partitions=first) as running:
        await until(lambda: are_at_end(redis, publisher, first))
        async with projector(redis_url, nats_url, partitions=second) as others:
            await until(lambda: projection_run.has_applied(redis, histories))
            await others.stop()
        assert not await projection_run.is_ready(redis)
        await publisher.mark_complete()
        await until(lambda: has_times(redis, len(first)))
        assert not await projection_run.is_ready(redis)
        async with projector(redis_url, nats_url, partitions=second):
            await until(lambda: projection_run.is_ready(redis))
            await running.stop()
    assert await redis.get(VIEW.ready) == INCARNATION_ID.encode()
    assert await redis.hlen(VIEW.as_of) == 16


async def test_a_redis_that_lost_its_scripts_or_its_connections_is_used_again(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await publisher.publish(*ONE)
        await until(lambda: projection_run.has_applied(redis, [ONE]))
        await redis.script_flush()
        await publisher.publish(*TWO)
        await until(lambda: projection_run.has_applied(redis, [ONE, TWO]))
        kill: Any = redis.client_kill_filter
        await kill(_type="normal", skipme=True)
        await publisher.publish(*THREE)
        await until(lambda: projection_run.is_complete(redis, [ONE, TWO, THREE]))
    await projection_run.assert_views(redis, [ONE, TWO, THREE])


async def test_as_of_advances_without_new_events(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    async def read_oldest() -> int:
        return min(map(int, (await redis.hgetall(VIEW.as_of)).values()))

    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await until(lambda: projection_run.is_ready(redis))
        for before in [await read_oldest() for _ in range(2)]:
            await until(lambda: is_newer(read_oldest, before))  # noqa: B023 - awaited here


@pytest.mark.parametrize("lost", [VIEW.build, VIEW.checkpoints])
async def test_a_projection_without_build_or_checkpoints_is_rebuilt(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, lost: str
) -> None:
    await publisher.publish(*ONE, *TWO[:1])
    async with (
        projector(redis_url, nats_url, partitions=range(8)),
        projector(redis_url, nats_url, partitions=range(8, 16)),
    ):
        await until(lambda: projection_run.is_ready(redis))
        await redis.hset(VIEW.key("c-1"), "data", b"damaged")
        await redis.hset(VIEW.key("ghost"), "data", b"no view")
        await redis.zadd(VIEW.index("account", "a-1"), {"ghost": 0})
        build = await redis.get(VIEW.build)
        await redis.delete(lost)
        await until(lambda: has_other_build(redis, build))
        await until(lambda: projection_run.is_ready(redis))
        await until(lambda: projection_run.is_complete(redis, [ONE, TWO[:1]]))
    await projection_run.assert_views(redis, [ONE, TWO[:1]])


async def have_epoch(redis: Redis, epoch: str) -> bool:
    checkpoints: Any = await redis.hvals(VIEW.checkpoints)
    return len(checkpoints) == 16 and all(value.decode().startswith(f"{epoch}/") for value in checkpoints)


async def is_not_ready(redis: Redis) -> bool:
    return not await projection_run.is_ready(redis)


async def has_other_build(redis: Redis, than: Any) -> bool:
    current: Any = await redis.get(VIEW.build)
    return current is not None and current != than and not current.endswith(b"clearing")


async def are_at_end(redis: Redis, publisher: EventPublisher, partitions: range) -> bool:
    """Return whether these partitions have read all of their messages."""
    ends = dict.fromkeys(partitions, 0)
    for sequence in count(1):
        try:
            message: Any = await publisher.connection.js.get_msg("DIPTYCH", seq=sequence, direct=True)
        except NotFoundError:
            break
        partition = int(message.subject.split(".")[2])
        if partition in ends:
            ends[partition] = sequence
    checkpoints: Any = await redis.hgetall(VIEW.checkpoints)
    for partition, end in ends.items():
        epoch, sequence = parse_checkpoint(checkpoints.get(str(partition).encode(), b"/0"))
        if epoch != publisher.epoch or sequence < end:
            return False
    return True


async def has_times(redis: Redis, count: int) -> bool:
    return await redis.hlen(VIEW.as_of) == count


async def is_newer(read_time: Any, than: int) -> bool:
    return bool(await read_time() > than)


async def test_a_session_and_its_replays_that_fail_together_leave_no_stray_error(
    redis_url: str, nats_url: str, publisher: EventPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = 0

    async def fail_replay(*_: object) -> None:
        nonlocal failures
        try:
            await asyncio.Event().wait()
        finally:
            failures += 1
            raise ConnectionError("lost while it ends")

    async def fail_session(_: object) -> None:
        await asyncio.sleep(0)  # the replays have begun
        raise ConnectionError("lost")

    monkeypatch.setattr(Replayer, "run", fail_replay)
    monkeypatch.setattr(session.Session, "step", fail_session)
    with no_stray_errors():
        async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
            await until(lambda: failures >= 2)
