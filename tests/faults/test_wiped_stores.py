"""JetStream and Redis lose all their data under load and are rebuilt without an operator."""

import asyncio
import shutil
from pathlib import Path

import grpc
import nats
from redis.asyncio import Redis

from contracts import streams
from devstack.stack import Stack
from tests.support.harness.invariants import assert_consistent
from tests.support.harness.rpc_failure import reason_of
from tests.support.harness.traffic import Traffic
from tests.support.harness.waiting import until
from tests.support.ledger.clerk import Clerk

UNAVAILABLE_REASONS = ("VIEW_REBUILDING", "READ_MODEL_UNAVAILABLE")


async def test_a_stream_deleted_under_load_is_rebuilt(stack: Stack, traffic: Traffic) -> None:
    async with traffic.flowing():
        await traffic.more(50)
        client = await nats.connect(stack.settings.nats_url)
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
