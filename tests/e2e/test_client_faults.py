"""`diptych_client` keeps its promises while connections are cut and processes are killed."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import diptych_client
import pytest
from diptych.consistency.v1.consistency_pb2 import Receipt
from diptych.ordering.v1 import command_service_pb2 as commands
from diptych.ordering.v1.command_service_pb2_grpc import CommandServiceStub
from diptych.ordering.v1.types_pb2 import Order
from diptych_client import aio

from devstack.stack import Stack
from operations.processes import COMMAND_SERVER, QUERY_SERVER
from tests.support.harness.clients_page import ROOT, build_target, list_addresses
from tests.support.harness.shop import Shop, order_of
from tests.support.harness.tcp_proxy import TcpProxy
from tests.support.harness.waiting import until

# Prints a line when it is connected, and goes on when it has read one.
PLACE_INTENDED_PROGRAM = """
import sys
from pathlib import Path
import grpc
from tests.support.harness.clients_page import load_page

target, token, file = sys.argv[1:]
page = load_page()
write, _ = page.connect(target, target, token)
grpc.channel_ready_future(write.channel).result(20)
print("connected", flush=True)
input()
print(page.place_intended(write, Path(file)).SerializeToString().hex())
"""


async def start_placing(target: str, token: str, file: Path) -> Process:
    """Start a process that places the order stored in a file, and prints the receipt; it is connected."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PLACE_INTENDED_PROGRAM, target, token, file),
        cwd=ROOT,
        stdin=PIPE,
        stdout=PIPE,
    )
    assert process.stdout and await process.stdout.readline() == b"connected\n"
    return process


@pytest.fixture
async def proxy(stack: Stack, request: pytest.FixtureRequest) -> AsyncIterator[TcpProxy]:
    """A proxy before the first server of a kind."""
    async with TcpProxy(int(list_addresses(stack, request.param)[0].rpartition(":")[2])) as proxy:
        yield proxy


before_commands = pytest.mark.parametrize("proxy", [COMMAND_SERVER], indirect=True, ids=["commands"])
before_queries = pytest.mark.parametrize("proxy", [QUERY_SERVER], indirect=True, ids=["queries"])


class Threads:
    """Places orders through a connection for threads."""

    def __init__(self, target: str, token: str) -> None:
        self._connection = diptych_client.connect(target, token=token)

    async def place(self, request: commands.PlaceOrderRequest) -> Receipt:
        place = CommandServiceStub(self._connection.channel).PlaceOrder
        return await asyncio.to_thread(self._connection.send, place, request)

    async def close(self) -> None:
        self._connection.close()


class Asyncio:
    """Places orders through a connection for asyncio."""

    def __init__(self, target: str, token: str) -> None:
        self._connection = aio.connect(target, token=token)

    async def place(self, request: commands.PlaceOrderRequest) -> Receipt:
        place = CommandServiceStub(self._connection.channel).PlaceOrder
        return await self._connection.send(place, request)

    async def close(self) -> None:
        await self._connection.close()


@pytest.fixture(params=[Threads, Asyncio])
async def client(
    request: pytest.FixtureRequest, proxy: TcpProxy, token: str
) -> AsyncIterator[Threads | Asyncio]:
    """Places orders through the proxy; its connection is open."""
    client = request.param(f"127.0.0.1:{proxy.port}", token)
    await client.place(order_of("client-zoe"))
    yield client
    await client.close()


@before_commands
async def test_calls_go_to_all_replicas_and_past_one_that_is_gone(
    stack: Stack, token: str, proxy: TcpProxy
) -> None:
    other = list_addresses(stack, COMMAND_SERVER)[1]
    async with aio.connect(f"ipv4:{other},127.0.0.1:{proxy.port}", token=token) as write:
        place = CommandServiceStub(write.channel).PlaceOrder

        async def place_ten() -> None:
            for _ in range(10):
                await write.send(place, order_of("client-bob"))

        await place_ten()
        assert proxy.connections == 1, "both replicas have their share"
        placing = asyncio.create_task(place_ten())
        await proxy.stop()
        await placing
        await place_ten()


@before_commands
async def test_a_command_cut_before_it_was_taken_has_one_effect(
    shop: Shop, proxy: TcpProxy, client: Threads | Asyncio
) -> None:
    request = order_of(f"client-{uuid4().hex}")
    proxy.flowing.clear()
    placing = asyncio.create_task(client.place(request))
    await until(lambda: proxy.holds_requests)
    await proxy.stop()
    assert await shop.list(customer_id=request.customer_id) == []
    proxy.flowing.set()
    await proxy.start()
    await assert_one_effect(shop, request, await placing, await client.place(request))


@before_commands
async def test_a_command_cut_after_it_was_taken_has_one_effect(
    shop: Shop, proxy: TcpProxy, client: Threads | Asyncio
) -> None:
    request = order_of(f"client-{uuid4().hex}")
    proxy.drops_answers = True
    placing = asyncio.create_task(client.place(request))
    await until(lambda: shop.list(customer_id=request.customer_id))
    assert not placing.done(), "it has no answer yet"
    await proxy.stop()
    proxy.drops_answers = False
    await proxy.start()
    await assert_one_effect(shop, request, await placing, await client.place(request))


@before_commands
async def test_a_process_that_was_killed_continues_with_its_stored_request(
    stack: Stack, shop: Shop, token: str, proxy: TcpProxy, page: Any, tmp_path: Path
) -> None:
    file, request = tmp_path / "order", order_of(f"client-{uuid4().hex}")
    request.request_id = ""
    page.intend(file, request)
    first = await start_placing(f"127.0.0.1:{proxy.port}", token, file)
    proxy.drops_answers = True
    assert first.stdin
    first.stdin.write(b"\n")
    await until(lambda: shop.list(customer_id=request.customer_id))
    first.kill()
    await first.wait()
    second = await start_placing(build_target(stack, COMMAND_SERVER), token, file)
    output, _ = await second.communicate(b"\n")
    await assert_one_effect(shop, request, Receipt.FromString(bytes.fromhex(output.decode())))
    assert not file.exists()


async def assert_one_effect(shop: Shop, request: commands.PlaceOrderRequest, *receipts: Receipt) -> None:
    receipt = await shop.place(request)
    assert list(receipts) == [receipt] * len(receipts), "the same request id has the same answer"
    orders = await shop.list(customer_id=request.customer_id, at_least_as_fresh=receipt.consistency_token)
    assert [(order.order_id, order.version) for order in orders] == [(receipt.aggregate_id, 1)]


@before_queries
async def test_a_watch_resumes_after_a_cut(shop: Shop, token: str, proxy: TcpProxy, page: Any) -> None:
    receipt = await shop.place(order_of("client-cleo"))
    await shop.get(receipt.aggregate_id, receipt.consistency_token)
    versions: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def seen(order: Order) -> None:
        loop.call_soon_threadsafe(versions.put_nowait, order.version)

    with diptych_client.connect(f"127.0.0.1:{proxy.port}", token=lambda: token) as read:
        watching = asyncio.create_task(asyncio.to_thread(page.watch, read, receipt.aggregate_id, seen))
        assert await asyncio.wait_for(versions.get(), 10) == 1
        await proxy.stop()
        await shop.confirm(receipt.aggregate_id)
        await proxy.start()
        assert await asyncio.wait_for(versions.get(), 10) == 2
        await shop.cancel(receipt.aggregate_id)
        assert await asyncio.wait_for(versions.get(), 10) == 3
        await asyncio.wait_for(watching, 10)


@before_queries
async def test_a_watch_with_asyncio_resumes_after_a_cut(
    stack: Stack, shop: Shop, token: str, proxy: TcpProxy, page: Any
) -> None:
    target = f"127.0.0.1:{proxy.port}"
    orders = page.place_and_watch(build_target(stack, COMMAND_SERVER), target, token, order_of("client-dan"))
    first = await anext(orders)
    await proxy.stop()
    await shop.confirm(first.order_id)
    await proxy.start()
    second = await asyncio.wait_for(anext(orders), 10)
    assert (first.version, second.version) == (1, 2)
    await orders.aclose()
