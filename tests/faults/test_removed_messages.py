"""Housekeeping removes messages of the stream, and whatever follows the stream still gets every event."""

from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from contracts import streams
from devstack.stack import Stack
from operations.housekeeping import stream as stream_removal
from operations.housekeeping.database import Database
from operations.housekeeping.kinds import Result
from operations.housekeeping.stream import StreamRemoval
from operations.projections import list_views, rebuild, wait_until_ready
from runtime.jetstream import StreamIdentity, connect, read_stream_identity
from tests.support.harness.invariants import assert_consistent, verify_stack
from tests.support.harness.keys import get_ring
from tests.support.harness.traffic import Traffic
from tests.support.harness.waiting import until


async def remove(stack: Stack, *, dry_run: bool = False) -> Result:
    """Remove all messages that nothing needs."""
    database = Database(stack.settings.database_url)
    try:
        return await stream_removal.remove(stack.settings, database, timedelta(0), dry_run)
    finally:
        await database.close()


async def read_identity(stack: Stack) -> StreamIdentity | None:
    async with await connect(stack.settings.nats_url, "test", get_ring) as connection:
        await connection.wait_until_connected()
        return await read_stream_identity(connection.js)


async def remove_any(stack: Stack) -> bool:
    return (await remove(stack)).removed > 0


async def remove_most(stack: Stack) -> StreamIdentity:
    """Remove messages once everything has read them; return the stream."""
    await until(lambda: remove_any(stack))
    identity = await read_identity(stack)
    assert identity is not None
    return identity


async def wait_for_another_epoch(stack: Stack, epoch: str) -> None:
    async def is_recreated() -> bool:
        identity = await read_identity(stack)
        return identity is not None and identity.epoch != epoch and identity.complete

    await until(is_recreated)


@pytest.mark.long
async def test_the_system_goes_on_without_the_removed_messages(stack: Stack, traffic: Traffic) -> None:
    async with traffic.flowing():
        await traffic.more(50)
        before = await read_identity(stack)
        after = await remove_most(stack)
        await traffic.more(50)
    assert before is not None
    assert (after.epoch, after.intact, after.first_sequence > 1) == (before.epoch, True, True)
    await assert_consistent(stack, traffic.answers)
    report = await verify_stack(stack)
    assert report.counts["archived messages"] > 0
    assert report.counts["events"] > 0
    identity = await read_identity(stack)
    assert identity is not None
    assert identity.epoch == before.epoch, "nothing needed the removed messages"


@pytest.mark.long
async def test_messages_are_removed_under_load(stack: Stack, traffic: Traffic) -> None:
    async with traffic.flowing():
        for _ in range(5):
            await traffic.more(20)
            await remove(stack)
    await assert_consistent(stack, traffic.answers)


@pytest.mark.long
async def test_a_rebuild_gets_the_removed_events(stack: Stack, traffic: Traffic) -> None:
    async with traffic.flowing():
        await traffic.more(30)
    removed = await remove_most(stack)
    view = list_views(stack.settings)[0]
    await rebuild(stack.settings, view, 60)
    await wait_for_another_epoch(stack, removed.epoch)
    await assert_consistent(stack, traffic.answers)


@pytest.mark.long
async def test_an_empty_redis_gets_the_removed_events(stack: Stack, traffic: Traffic) -> None:
    async with traffic.flowing():
        await traffic.more(30)
    removed = await remove_most(stack)
    async with Redis.from_url(stack.settings.redis_url) as redis:
        await redis.flushall()
    await wait_for_another_epoch(stack, removed.epoch)
    await wait_until_ready(stack.settings)
    await assert_consistent(stack, traffic.answers)


@pytest.mark.long
async def test_a_redis_that_went_back_in_time_gets_the_removed_events(stack: Stack, traffic: Traffic) -> None:
    async with traffic.flowing():
        await traffic.more(30)
    removed = await remove_most(stack)
    view = list_views(stack.settings)[0]
    async with Redis.from_url(stack.settings.redis_url) as redis:
        await redis.hset(view.checkpoints, "7", f"{removed.epoch}/1")
    await wait_for_another_epoch(stack, removed.epoch)
    await assert_consistent(stack, traffic.answers)


@pytest.mark.long
async def test_a_round_killed_before_the_purge_is_repeated(
    stack: Stack, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with traffic.flowing():
        await traffic.more(30)
        with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr("nats.js.JetStreamContext.purge_stream", lambda *_, **__: 1 / 0)
            await until(lambda: remove_any(stack))
        await traffic.more(30)
        await remove_most(stack)
    await assert_consistent(stack, traffic.answers)


@pytest.mark.long
async def test_a_build_that_begins_during_the_removal_keeps_its_checkpoints(
    stack: Stack, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    view, find_blocking = list_views(stack.settings)[0], StreamRemoval._find_blocking
    async with traffic.flowing():
        await traffic.more(30)
    async with Redis.from_url(stack.settings.redis_url) as redis:

        async def find_and_begin(removal: StreamRemoval, followers: Any, epoch: str, end: int) -> Any:
            blocking = await find_blocking(removal, followers, epoch, end)
            if blocking is None:
                await redis.hset(view.checkpoints, "7", f"{epoch}/0")
            return blocking

        async def has_begun() -> bool:
            return (await remove(stack)).note.endswith("began meanwhile")

        before = await read_identity(stack)
        with monkeypatch.context() as patch:
            patch.setattr(StreamRemoval, "_find_blocking", find_and_begin)
            await until(has_begun)
    assert before is not None
    await wait_for_another_epoch(stack, before.epoch)  # the build asked for the removed events
    await assert_consistent(stack, traffic.answers)


@pytest.mark.long
async def test_messages_that_somebody_else_removed_are_published_again(
    stack: Stack, traffic: Traffic
) -> None:
    async with traffic.flowing():
        await traffic.more(30)
        removed = await remove_most(stack)
        await traffic.more(30)
        async with await connect(stack.settings.nats_url, "test", get_ring) as connection:
            await connection.wait_until_connected()
            await connection.js.purge_stream(streams.JETSTREAM, keep=1)
        await wait_for_another_epoch(stack, removed.epoch)
    await assert_consistent(stack, traffic.answers)


@pytest.mark.long
async def test_a_projection_that_is_behind_keeps_its_messages(stack: Stack, traffic: Traffic) -> None:
    view = list_views(stack.settings)[0]
    async with Redis.from_url(stack.settings.redis_url) as redis:
        projectors = [process for process in stack.processes if process.kind.module == "projector"]
        for projector in projectors:
            await projector.stop()
        async with traffic.flowing():
            await traffic.more(30)
        await redis.delete(view.checkpoints)
        result = await remove(stack)
        for projector in projectors:
            await projector.start()
    assert result.removed == 0
    assert "has not read" in result.note
    await assert_consistent(stack, traffic.answers)
