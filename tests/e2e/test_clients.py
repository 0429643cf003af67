"""The examples in docs/clients.md work as printed, and `diptych_client` keeps its promises on a stack."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import diptych_client
import grpc
import pytest
from diptych.consistency.v1.consistency_pb2 import Receipt
from diptych.ordering.v1 import command_service_pb2 as commands
from diptych.ordering.v1.command_service_pb2_grpc import CommandServiceStub
from diptych.ordering.v1.types_pb2 import Order
from diptych_client import Rejection, aio

from devstack.stack import Stack
from operations.processes import COMMAND_SERVER, QUERY_SERVER
from tests.support.harness.shop import Shop, order_of
from tests.support.harness.tcp_proxy import TcpProxy
from tests.support.harness.waiting import until

PAGE = (Path(__file__).parents[2] / "docs/clients.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def page() -> Any:
    """The functions that the examples of the page define."""
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(block, names)
    return SimpleNamespace(**names)


@pytest.fixture
def token(stack: Stack) -> str:
    return stack.token("ordering.write", "ordering.read")


@pytest.fixture
async def proxy(stack: Stack, request: pytest.FixtureRequest) -> AsyncIterator[TcpProxy]:
    """A proxy before the first server of a kind."""
    async with TcpProxy(int(addresses(stack, request.param)[0].rpartition(":")[2])) as proxy:
        yield proxy


before_commands = pytest.mark.parametrize("proxy", [COMMAND_SERVER], indirect=True, ids=["commands"])
before_queries = pytest.mark.parametrize("proxy", [QUERY_SERVER], indirect=True, ids=["queries"])


def addresses(stack: Stack, kind: Any) -> list[str]:
    return [process.address for process in stack.of(kind)]


def all_of(stack: Stack, kind: Any) -> str:
    """Return a target that reaches all servers of a kind."""
    return f"ipv4:{','.join(addresses(stack, kind))}"


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


def test_the_pages_service_config_is_the_packages() -> None:
    (config,) = blocks("json")
    assert json.loads(config) == diptych_client.service_config()


async def test_an_order_is_placed_and_read_back(stack: Stack, token: str, page: Any) -> None:
    write, read = page.connect(all_of(stack, COMMAND_SERVER), all_of(stack, QUERY_SERVER), lambda: token)
    with write, read:
        order = await asyncio.to_thread(page.place_and_read, write, read, order_of("client-ada"))
    assert order.state == Order.STATE_PLACED


async def test_an_order_is_placed_and_watched_with_asyncio(
    stack: Stack, shop: Shop, token: str, page: Any
) -> None:
    targets = (all_of(stack, COMMAND_SERVER), all_of(stack, QUERY_SERVER))
    orders = page.place_and_watch(*targets, token, order_of("client-abe"))
    first = await anext(orders)
    await shop.confirm(first.order_id)
    second = await asyncio.wait_for(anext(orders), 10)
    assert (first.state, second.state) == (Order.STATE_PLACED, Order.STATE_CONFIRMED)
    await orders.aclose()


async def test_a_rejection_has_its_reason_and_facts(
    stack: Stack, token: str, page: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write, read = page.connect(all_of(stack, COMMAND_SERVER), all_of(stack, QUERY_SERVER), token)
    with write, read, pytest.raises(Rejection) as raised:
        assert page.place(write, order_of("client-bea", order_id="client-bea-1"))
        assert page.place(write, order_of("client-bea", order_id="client-bea-1")) is None
        confirm = commands.ConfirmOrderRequest(order_id="nobody")
        await asyncio.to_thread(write.send, CommandServiceStub(write.channel).ConfirmOrder, confirm)
    assert "ORDER_EXISTS" in capsys.readouterr().out
    assert (raised.value.code, raised.value.reason) == (grpc.StatusCode.NOT_FOUND, "ORDER_NOT_FOUND")
    assert raised.value.domain == "ordering.diptych"
    assert "nobody" in raised.value.metadata.values()


async def test_an_invalid_request_names_its_fields(stack: Stack, token: str) -> None:
    invalid = order_of("not a customer id")
    async with aio.connect(all_of(stack, COMMAND_SERVER), token=token) as write:
        with pytest.raises(Rejection) as raised:
            await write.send(CommandServiceStub(write.channel).PlaceOrder, invalid)
    assert raised.value.reason == "REQUEST_INVALID"
    assert "customer_id" in raised.value.violations


@before_commands
async def test_calls_go_to_all_replicas_and_past_one_that_is_gone(
    stack: Stack, token: str, proxy: TcpProxy
) -> None:
    other = addresses(stack, COMMAND_SERVER)[1]
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
    await asyncio.sleep(0.1)  # so that the proxy usually has the request
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
    orders = page.place_and_watch(all_of(stack, COMMAND_SERVER), target, token, order_of("client-dan"))
    first = await anext(orders)
    await proxy.stop()
    await shop.confirm(first.order_id)
    await proxy.start()
    second = await asyncio.wait_for(anext(orders), 10)
    assert (first.version, second.version) == (1, 2)
    await orders.aclose()
