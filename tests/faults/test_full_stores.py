"""A store has no room left: its disk is full, or it has reached its limit. All heals once there is room."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import asyncpg
import grpc
import pytest
from redis.asyncio import Redis

from contracts import streams
from devstack.servers import Postgres
from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import PROCESS_MANAGER, PROJECTOR, QUERY_SERVER, RELAY, check_health
from runtime.jetstream import read_stream_identity
from tests.support.harness.invariants import assert_consistent
from tests.support.harness.jetstream import open_client
from tests.support.harness.outbox import count_pending
from tests.support.harness.rpc_failure import reason_of
from tests.support.harness.small_disks import empty, fill, small_disk
from tests.support.harness.traffic import Traffic
from tests.support.harness.waiting import until
from tests.support.ledger.clerk import Clerk, cheque_of
from tests.support.ledger.installation import CONTEXT, installed

pytestmark = pytest.mark.long

FULL = 4.0
"""Seconds that a store stays full: longer than the longest pause between retries, which is 2 s."""
PAUSE = 0.3
SIZES = {"postgres": 200, "wal": 100, "nats": 100, "redis": 100}
"""Megabytes of the servers' disks."""


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Path]]:
    folder = tmp_path_factory.mktemp("full")
    with ExitStack() as mounts:
        yield {name: mounts.enter_context(small_disk(folder / name, size)) for name, size in SIZES.items()}


@pytest.fixture(scope="module")
async def stack(disks: Mapping[str, Path]) -> AsyncIterator[Stack]:
    folder = disks["postgres"].parent
    with installed(CONTEXT):
        async with temporary_stack(folder, contexts=CONTEXT, process_managers=1) as stack:
            yield stack


async def test_a_full_disk_of_postgresql_refuses_commands(
    stack: Stack, disks: Mapping[str, Path], traffic: Traffic, clerk: Clerk
) -> None:
    async with traffic.flowing(PAUSE):
        await traffic.more(30)
        cheque_id = (await clerk.write(cheque_of("full"))).aggregate_id
        fill(disks["postgres"])

        async def refuses() -> bool:
            fill(disks["postgres"])  # PostgreSQL frees some space by itself
            return await _reason_of(clerk.write(cheque_of("full"))) == "STORAGE_FULL"

        await until(refuses)
        await _stay_full()
        assert (await clerk.get(cheque_id)).cheque_id == cheque_id
        empty(disks["postgres"])
        await traffic.more(30)
    await _assert_healed(stack, traffic)


async def test_a_full_disk_of_jetstream_delays_events(
    stack: Stack, disks: Mapping[str, Path], traffic: Traffic, clerk: Clerk
) -> None:
    async with traffic.flowing(PAUSE):
        await traffic.more(30)
        fill(disks["nats"])
        await until(lambda: _has_pending(stack))
        await traffic.more(30)
        await _stay_full()
        receipt = await clerk.write(cheque_of("full"))
        assert await _reason_of(clerk.get(receipt.aggregate_id, receipt.consistency_token)) == "VIEW_BEHIND"
        empty(disks["nats"])
        await traffic.more(30)
    await _assert_healed(stack, traffic)


async def test_a_stream_that_met_a_full_disk_is_replaced(
    stack: Stack, disks: Mapping[str, Path], traffic: Traffic
) -> None:
    """NATS stores nothing more in a stream after a write error, until it restarts."""
    client = await open_client(stack.settings.nats_url)
    await traffic.write("full")
    await until(lambda: _has_none_pending(stack))
    before = await read_stream_identity(client.jetstream())
    manager = stack.of(PROCESS_MANAGER)[0].child
    manager.freeze()  # no commands but the test's: a lone event gets no answer
    failures = _count_timeouts(stack)

    async def has_none_pending_or_failed() -> bool:
        return await _has_none_pending(stack) or _count_timeouts(stack) > failures

    fill(disks["nats"])
    while _count_timeouts(stack) == failures:
        await traffic.write("full")  # the last page of the file has room for some
        await until(has_none_pending_or_failed)
    manager.thaw()
    empty(disks["nats"])
    async with traffic.flowing(PAUSE):
        await traffic.more(30)

    async def is_replaced() -> bool:
        stream = await read_stream_identity(client.jetstream())
        return bool(before and stream and stream.epoch != before.epoch)

    await until(is_replaced, 60)
    await client.close()
    await _assert_healed(stack, traffic)


async def test_a_full_stream_delays_events(stack: Stack, traffic: Traffic) -> None:
    client = await open_client(stack.settings.nats_url)
    js = client.jetstream()
    async with traffic.flowing(PAUSE):
        await traffic.more(30)
        info = await js.stream_info(streams.JETSTREAM)
        await js.update_stream(info.config.evolve(max_bytes=info.state.bytes + 1))
        await until(lambda: _has_pending(stack))
        await stack.of(RELAY)[0].child.kill()  # the next one finds a stream that is full
        await stack.of(RELAY)[0].start()
        await traffic.more(30)
        await _stay_full()
        assert (await js.stream_info(streams.JETSTREAM)).state.messages >= info.state.messages
        await js.update_stream(info.config)
        await traffic.more(30)
    await client.close()
    await _assert_healed(stack, traffic)


async def test_a_full_redis_answers_from_what_it_has(stack: Stack, traffic: Traffic, clerk: Clerk) -> None:
    async with traffic.flowing(PAUSE), Redis.from_url(stack.settings.redis_url) as redis:
        await traffic.more(30)
        before = await clerk.write(cheque_of("full"))
        await clerk.get(before.aggregate_id, before.consistency_token)
        await redis.config_set("maxmemory", 1)
        await _assert_views_stand_still(clerk, before.aggregate_id)
        await stack.of(PROJECTOR)[0].child.kill()  # the next one begins while Redis is full
        await stack.of(PROJECTOR)[0].child.start()
        await traffic.more(30)
        await _stay_full()
        await redis.config_set("maxmemory", 0)
        await traffic.more(30)
    await _assert_healed(stack, traffic)


async def test_a_full_disk_of_redis_answers_from_what_it_has(
    stack: Stack, disks: Mapping[str, Path], traffic: Traffic, clerk: Clerk
) -> None:
    async with traffic.flowing(PAUSE):
        await traffic.more(30)
        before = await clerk.write(cheque_of("full"))
        await clerk.get(before.aggregate_id, before.consistency_token)
        fill(disks["redis"])
        await _assert_views_stand_still(clerk, before.aggregate_id)
        await traffic.more(30)
        await _stay_full()
        assert await check_health(stack.of(QUERY_SERVER)[0].address) == "SERVING"
        empty(disks["redis"])
        await traffic.more(30)
    await _assert_healed(stack, traffic)


async def test_a_full_disk_of_the_log_stops_postgresql(
    stack: Stack, disks: Mapping[str, Path], traffic: Traffic
) -> None:
    """PostgreSQL's log is on a disk of its own; without room it ends itself, and is started again by hand."""
    postgres = stack.servers["database_url"]
    assert isinstance(postgres, Postgres)
    await postgres.stop()
    wal = postgres.folder / "data" / "pg_wal"
    shutil.move(wal, disks["wal"] / "pg_wal")
    wal.symlink_to(disks["wal"] / "pg_wal")
    await postgres.start()
    async with traffic.flowing(PAUSE):
        await traffic.more(30)
        fill(disks["wal"])
        await until(lambda: _ends_at_next_segment(postgres))
        await _stay_full()
        empty(disks["wal"])
        await postgres.start()
        await traffic.more(30)
    await _assert_healed(stack, traffic)


async def _ends_at_next_segment(postgres: Postgres) -> bool:
    """Have PostgreSQL begin a new file of its log; return whether it has ended."""
    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        await postgres.execute("SELECT pg_switch_wal()")
    return not postgres.child.running


async def _assert_views_stand_still(clerk: Clerk, cheque_id: str) -> None:
    """Wait until new events do not reach the views; then read an older view."""

    async def stands_still() -> bool:
        receipt = await clerk.write(cheque_of("full"))
        return await _reason_of(clerk.get(receipt.aggregate_id, receipt.consistency_token)) == "VIEW_BEHIND"

    await until(stands_still)
    assert (await clerk.get(cheque_id)).cheque_id == cheque_id


async def _stay_full() -> None:
    await asyncio.sleep(FULL)  # the length of the fault, not a wait for anything


async def _assert_healed(stack: Stack, traffic: Traffic) -> None:
    assert all(process.child.running for process in stack.processes)
    for process in stack.processes:
        await process.wait_serving()
    await assert_consistent(stack, traffic.answers)


async def _reason_of(call: Awaitable[object]) -> str:
    """Return the reason of a failed call; empty if it succeeds."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return reason_of(error)
    return ""


async def _has_pending(stack: Stack) -> bool:
    return await count_pending(stack) > 20


async def _has_none_pending(stack: Stack) -> bool:
    return await count_pending(stack) == 0


def _count_timeouts(stack: Stack) -> int:
    """Return how often the relay has logged that NATS did not answer."""
    return (Path(stack.servers["nats_url"].folder.parent) / "relay.log").read_text().count("TimeoutError")
