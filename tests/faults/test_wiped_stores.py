"""JetStream and Redis lose all their data under load and are rebuilt without an operator."""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from redis.asyncio import Redis

from command_server.relay.event_stream import EventStream
from contracts import streams
from contracts.envelope import RecordedEvent
from contracts.key_ring import Purpose
from devstack.stack import Stack
from operations.processes import QUERY_SERVER, RELAY
from runtime.process.key_file import KeyFile
from tests.support.harness import feed
from tests.support.harness.invariants import assert_consistent
from tests.support.harness.jetstream import open_client
from tests.support.harness.rpc_failure import reason_of
from tests.support.harness.traffic import Traffic
from tests.support.harness.waiting import until
from tests.support.ledger.clerk import Clerk
from tests.support.ledger.stored_views import CHEQUE

UNAVAILABLE_REASONS = ("VIEW_REBUILDING", "READ_MODEL_UNAVAILABLE")


async def test_a_stream_deleted_under_load_is_rebuilt(stack: Stack, traffic: Traffic) -> None:
    async with traffic.flowing():
        await traffic.more(50)
        client = await open_client(stack.settings.nats_url)
        await client.jetstream().delete_stream(streams.JETSTREAM)
        await client.close()
        await traffic.more(50)
    await assert_consistent(stack, traffic.answers)


async def test_a_jetstream_that_lost_its_disk_is_rebuilt(stack: Stack, traffic: Traffic) -> None:
    server = stack.servers["nats_url"]
    async with traffic.flowing():
        await traffic.more(50)
        await server.kill()
        shutil.rmtree(Path(server.folder, "jetstream"))
        await traffic.more(50)
        await server.start()
        await traffic.more(50)
    await assert_consistent(stack, traffic.answers)


async def test_a_flushed_redis_never_denies_a_view(stack: Stack, traffic: Traffic) -> None:
    receipts = [await traffic.write("flushed") for _ in range(5)]
    clerk, wrong, complete = Clerk(stack), list[str](), list[int]()
    for receipt in receipts:
        await clerk.get(receipt.aggregate_id, receipt.consistency_token)
    await _wait_until_listed(clerk, len(receipts))

    async def read() -> None:
        while True:
            for receipt in receipts:
                try:
                    await clerk.get(receipt.aggregate_id)
                    count = len(await clerk.list(account_id="flushed"))
                    complete.append(count)
                    if count != len(receipts):
                        wrong.append(f"{count} cheques are listed")
                except grpc.aio.AioRpcError as error:
                    if reason_of(error) not in UNAVAILABLE_REASONS:
                        wrong.append(reason_of(error))
            await asyncio.sleep(0)

    readers = [asyncio.create_task(read()) for _ in range(4)]
    async with traffic.flowing(), Redis.from_url(stack.settings.redis_url) as redis:
        for _ in range(3):
            await redis.flushall()
            await traffic.more(30)
    await assert_consistent(stack, traffic.answers)
    for reader in readers:
        assert not reader.done()
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    await clerk.close()
    assert complete
    assert not wrong, wrong[:5]


async def test_a_redis_that_restarts_empty_is_rebuilt(stack: Stack, traffic: Traffic) -> None:
    server = stack.servers["redis_url"]
    async with traffic.flowing():
        await traffic.more(50)
        await server.kill()
        shutil.rmtree(Path(server.folder, "appendonlydir"))
        await server.start()
        await traffic.more(50)
    await assert_consistent(stack, traffic.answers)


async def _wait_until_listed(clerk: Clerk, count: int) -> None:
    async def are_listed() -> bool:
        return len(await clerk.list(account_id="flushed")) == count

    await until(are_listed)


@pytest.mark.long
async def test_no_view_goes_back_while_an_empty_redis_is_filled_from_half_a_stream(
    stack: Stack, traffic: Traffic, clerk: Clerk
) -> None:
    """JetStream lost its disk, and Redis is flushed while the relay has published half of the history."""
    receipt = await traffic.write("refill")
    cheque_id = receipt.aggregate_id
    while receipt.version < 22:
        receipt = await clerk.endorse(cheque_id)
    assert (await clerk.get(cheque_id, receipt.consistency_token)).version == 22
    relays, nats_server = stack.of(RELAY), stack.servers["nats_url"]
    for relay in relays:
        await relay.child.kill()
    try:
        await nats_server.kill()
        shutil.rmtree(Path(nats_server.folder, "jetstream"))
        await nats_server.start()
        await _publish_history_to(stack, f"ledger.cheque.{cheque_id}", 18)
        async with Redis.from_url(stack.settings.redis_url) as redis:
            await _flush_all_but_skips(redis)

            async def is_half_built() -> bool:
                return await redis.hget(CHEQUE.key(cheque_id), "version") == b"18"

            await until(is_half_built)
        for _ in stack.of(QUERY_SERVER):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await clerk.get(cheque_id)
            assert reason_of(error.value) == "VIEW_REBUILDING"
    finally:
        for relay in relays:
            await relay.start()
    seen: set[int] = set()

    async def is_built() -> bool:
        try:
            seen.add((await clerk.get(cheque_id)).version)
        except grpc.aio.AioRpcError as error:
            assert reason_of(error) in UNAVAILABLE_REASONS
        return bool(seen)

    await until(is_built, 40)
    assert seen == {22}
    await assert_consistent(stack, traffic.answers)


async def _flush_all_but_skips(redis: Redis) -> None:
    """Empty Redis except for the events to skip: no build begins before a relay has told of them."""
    kept: dict[bytes, Any] = {key: await redis.dump(key) async for key in redis.scan_iter("skips:*")}
    async with redis.pipeline() as transaction:
        transaction.flushall()
        for key, value in kept.items():
            transaction.restore(key, 0, value)
        await transaction.execute()


async def _publish_history_to(stack: Stack, stream: str, version: int) -> None:
    """Run a relay that dies as soon as it has published an event."""
    stopped = asyncio.Event()

    class DyingStream(EventStream):
        async def publish(self, epoch: str, events: Sequence[RecordedEvent], after: int) -> int:
            ids = [event.id for event in events]
            if (last := f"{stream}@{version}") in ids:
                await super().publish(epoch, events[: ids.index(last) + 1], after)
                stopped.set()
                await asyncio.Event().wait()
            return await super().publish(epoch, events, after)

    ring = KeyFile(stack.settings.keys, [Purpose.FEED]).get_ring
    async with feed.relay(
        stack.settings.database_url, stack.settings.nats_url, stream=DyingStream, ring=ring
    ):
        await asyncio.wait_for(stopped.wait(), 30)
