"""The examples in docs/clients.md work as printed."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from diptych.ordering.v1 import command_service_pb2 as commands
from diptych.ordering.v1.command_service_pb2_grpc import CommandServiceStub
from diptych.ordering.v1.types_pb2 import Order

from devstack.stack import Stack
from operations.processes import COMMAND_SERVER, QUERY_SERVER
from tests.support.harness.shop import Shop, order_of
from tests.support.harness.tcp_proxy import TcpProxy

PAGE = (Path(__file__).parents[2] / "docs/clients.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def client() -> Any:
    """The functions that the examples of the page define."""
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(block, names)
    return type("Client", (), {name: staticmethod(value) for name, value in names.items() if callable(value)})


@pytest.fixture(scope="module")
def service_config() -> str:
    (config,) = blocks("json")
    return json.dumps(json.loads(config))


def test_an_order_is_placed_and_read_back(stack: Stack, shop: Shop, client: Any, service_config: str) -> None:
    write = client.channel(stack.of(COMMAND_SERVER)[0].address, service_config)
    read = client.channel(stack.of(QUERY_SERVER)[0].address, service_config)
    with write, read:
        order = client.place_and_read(write, read, order_of("client-ada"), shop.bearer)
        assert order.state == Order.STATE_PLACED


def test_a_rejection_raises_with_its_reason(
    stack: Stack, shop: Shop, client: Any, service_config: str
) -> None:
    with client.channel(stack.of(COMMAND_SERVER)[0].address, service_config) as channel:
        with pytest.raises(grpc.RpcError) as error:
            client.send(
                CommandServiceStub(channel).ConfirmOrder,
                commands.ConfirmOrderRequest(order_id="nobody"),
                shop.bearer,
            )
        assert client.reason(error.value) == "ORDER_NOT_FOUND"


async def test_calls_go_to_all_replicas_and_past_one_that_is_gone(
    stack: Stack, shop: Shop, client: Any, service_config: str
) -> None:
    first, second = (process.address for process in stack.of(COMMAND_SERVER))
    proxy = TcpProxy(int(second.rpartition(":")[2]))
    async with proxy:
        channel = client.channel(f"ipv4:{first},127.0.0.1:{proxy.port}", service_config)
        place = CommandServiceStub(channel).PlaceOrder

        def place_ten() -> None:
            for _ in range(10):
                client.send(place, order_of("client-bob"), shop.bearer)

        await asyncio.to_thread(place_ten)
        assert proxy.connections == 1, "both replicas have their share"
        placing = asyncio.create_task(asyncio.to_thread(place_ten))
        await proxy.stop()
        await placing
        await asyncio.to_thread(place_ten)
        channel.close()


async def test_a_watch_resumes_after_a_cut(
    stack: Stack, shop: Shop, client: Any, service_config: str
) -> None:
    receipt = await shop.place(order_of("client-cleo"))
    await shop.get(receipt.aggregate_id, receipt.consistency_token)
    proxy = TcpProxy(int(stack.of(QUERY_SERVER)[0].address.rpartition(":")[2]))
    async with proxy:
        channel = client.channel(f"127.0.0.1:{proxy.port}", service_config)
        versions: asyncio.Queue[int] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def seen(order: Order) -> bool:
            loop.call_soon_threadsafe(versions.put_nowait, order.version)
            return order.state != Order.STATE_CANCELLED

        watching = asyncio.create_task(
            asyncio.to_thread(client.watch, channel, receipt.aggregate_id, lambda: shop.bearer, seen)
        )
        assert await versions.get() == 1
        await proxy.stop()
        await shop.confirm(receipt.aggregate_id)
        await proxy.start()
        assert await asyncio.wait_for(versions.get(), 10) == 2
        await shop.cancel(receipt.aggregate_id)
        assert await asyncio.wait_for(versions.get(), 10) == 3
        await asyncio.wait_for(watching, 10)
        channel.close()
