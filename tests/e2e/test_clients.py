"""The examples in docs/clients.md work as printed, and errors say why."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import diptych_client
import grpc
import pytest
from diptych.ordering.v1 import command_service_pb2 as commands
from diptych.ordering.v1.command_service_pb2_grpc import CommandServiceStub
from diptych.ordering.v1.types_pb2 import Order
from diptych_client import Rejection, aio

from devstack.stack import Stack
from operations.processes import COMMAND_SERVER, QUERY_SERVER
from tests.support.harness.clients_page import build_target, read_blocks
from tests.support.harness.shop import Shop, order_of


def test_the_pages_service_config_is_the_packages() -> None:
    (config,) = read_blocks("json")
    assert json.loads(config) == diptych_client.service_config("diptych.ordering")


async def test_an_order_is_placed_and_read_back(stack: Stack, token: str, page: Any) -> None:
    write, read = page.connect(
        build_target(stack, COMMAND_SERVER), build_target(stack, QUERY_SERVER), lambda: token
    )
    with write, read:
        order = await asyncio.to_thread(page.place_and_read, write, read, order_of("client-ada"))
    assert order.state == Order.STATE_PLACED


async def test_an_order_is_placed_and_watched_with_asyncio(
    stack: Stack, shop: Shop, token: str, page: Any
) -> None:
    targets = (build_target(stack, COMMAND_SERVER), build_target(stack, QUERY_SERVER))
    orders = page.place_and_watch(*targets, token, order_of("client-abe"))
    first = await anext(orders)
    await shop.confirm(first.order_id)
    second = await asyncio.wait_for(anext(orders), 10)
    assert (first.state, second.state) == (Order.STATE_PLACED, Order.STATE_CONFIRMED)
    await orders.aclose()


async def test_a_rejection_has_its_reason_and_facts(
    stack: Stack, token: str, page: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write, read = page.connect(build_target(stack, COMMAND_SERVER), build_target(stack, QUERY_SERVER), token)
    with write, read, pytest.raises(Rejection) as raised:
        assert page.place(write, order_of("client-bea", order_id="client-bea-1"))
        assert page.place(write, order_of("client-bea", order_id="client-bea-1")) is None
        cancel = commands.CancelOrderRequest(order_id="nobody", reason="enough")
        await asyncio.to_thread(write.send, CommandServiceStub(write.channel).CancelOrder, cancel)
    assert "ORDER_EXISTS" in capsys.readouterr().out
    assert (raised.value.code, raised.value.reason) == (grpc.StatusCode.NOT_FOUND, "ORDER_NOT_FOUND")
    assert raised.value.domain == "ordering.diptych"
    assert "nobody" in raised.value.metadata.values()


@dataclass
class Shown:
    """Cancels an order by the page's recipe, and records what it shows."""

    stack: Stack
    page: Any
    token: str
    orders: list[tuple[int, int, bool]] = field(default_factory=list)

    async def cancel(self, order: Order) -> None:
        targets = (build_target(self.stack, COMMAND_SERVER), build_target(self.stack, QUERY_SERVER))
        write, read = self.page.connect(*targets, self.token)
        with write, read:
            await asyncio.to_thread(self.page.cancel, write, read, order, "changed my mind", self.show)

    def show(self, order: Order, confirmed: bool) -> None:
        self.orders.append((order.state, order.version, confirmed))


@pytest.fixture
def shown(stack: Stack, page: Any, token: str) -> Shown:
    return Shown(stack, page, token)


async def test_an_expected_state_is_confirmed_by_the_view(shop: Shop, shown: Shown) -> None:
    receipt = await shop.place(order_of("client-eve"))
    await shown.cancel(await shop.get(receipt.aggregate_id, receipt.consistency_token))
    assert shown.orders == [(Order.STATE_CANCELLED, 1, False), (Order.STATE_CANCELLED, 2, True)]


async def test_an_expected_state_is_taken_back_after_a_rejection(shop: Shop, shown: Shown) -> None:
    receipt = await shop.place(order_of("client-eli"))
    order = await shop.get(receipt.aggregate_id, receipt.consistency_token)
    confirmed = await shop.confirm(order.order_id)
    await shop.get(order.order_id, confirmed.consistency_token)
    with pytest.raises(Rejection, match="VERSION_MISMATCH"):
        await shown.cancel(order)
    assert shown.orders == [(Order.STATE_CANCELLED, 1, False), (Order.STATE_CONFIRMED, 2, True)]


async def test_a_request_id_belongs_to_the_subject_of_its_caller(stack: Stack) -> None:
    request, receipts = order_of("client-ida"), []
    for subject in ("ida", "ida", "ian"):
        token = stack.token("ordering.place", "ordering.own-prices", "ordering.all", subject=subject)
        async with aio.connect(build_target(stack, COMMAND_SERVER), token=token) as write:
            receipts.append(await write.send(CommandServiceStub(write.channel).PlaceOrder, request))
    first, again, another = (receipt.aggregate_id for receipt in receipts)
    assert first == again != another


async def test_an_invalid_request_names_its_fields(stack: Stack, token: str) -> None:
    invalid = order_of("not a customer id")
    async with aio.connect(build_target(stack, COMMAND_SERVER), token=token) as write:
        with pytest.raises(Rejection) as raised:
            await write.send(CommandServiceStub(write.channel).PlaceOrder, invalid)
    assert raised.value.reason == "REQUEST_INVALID"
    assert "customer_id" in raised.value.violations
