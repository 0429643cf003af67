"""The commands of a fulfilment: those that the saga sends for an order that is confirmed."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import NAMESPACE_OID, uuid4, uuid5

import grpc
from diptych.banking.v1.command_service_pb2 import (
    DepositRequest,
    FirmHoldRequest,
    OpenAccountRequest,
    PlaceHoldRequest,
)
from diptych.inventory.v1.command_service_pb2 import (
    FirmReservationRequest,
    ReceiveStockRequest,
    RegisterProductRequest,
    ReserveStockRequest,
)
from diptych.inventory.v1.types_pb2 import RECEIPT_REASON_OPENING, ReservationLine
from diptych.ordering.v1.command_service_pb2 import AssessOrderRequest, ConfirmOrderRequest, PlaceOrderRequest
from google.protobuf.message import Message
from google.type.money_pb2 import Money

from bench import requests

CLAIM_LIFETIME = timedelta(hours=1)
SUPPLIES = 1_000_000
"""Pieces of each product: enough for every run."""
FUNDS = 1_000
"""Euros of each account: enough for its order."""
LINES = 3
TIMEOUT = 60.0
"""Seconds per call."""

Steps = Sequence[Sequence[Message]]
"""Groups of commands; the commands of a group are sent at once."""


class Caller:
    """Sends commands to one command server, each to the service of its message's package."""

    def __init__(self, address: str, token: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._methods: dict[type[Message], Any] = {}

    async def send(self, request: Message) -> None:
        """Send a command, under a new request id unless it has one.

        Raises:
            grpc.aio.AioRpcError: it was not answered OK.
        """
        method = self._methods.get(type(request)) or self._make_method(type(request))
        message: Any = request
        message.request_id = message.request_id or str(uuid4())
        await method(message.SerializeToString(), metadata=self._metadata, timeout=TIMEOUT)

    async def send_steps(self, steps: Steps) -> None:
        for group in steps:
            await asyncio.gather(*map(self.send, group))

    async def close(self) -> None:
        await self._channel.close()

    def _make_method(self, kind: type[Message]) -> Any:
        self._methods[kind] = self._channel.unary_unary(name_method(kind))
        return self._methods[kind]


def name_method(kind: type[Message]) -> str:
    """Return the path of the command that has this request."""
    package, name = kind.DESCRIPTOR.file.package, kind.DESCRIPTOR.name.removesuffix("Request")
    return f"/{package}.CommandService/{name}"


def generate_supplies() -> Iterator[Message]:
    """Yield the commands that all orders need: products with stock."""
    for number in range(LINES):
        yield RegisterProductRequest(sku=f"sku-{number}", title="A thing of some use")
    for number in range(LINES):
        yield ReceiveStockRequest(
            sku=f"sku-{number}",
            warehouse_id="warehouse-1",
            quantity=SUPPLIES,
            reason=RECEIPT_REASON_OPENING,
            delivery_note=f"note-{number}",
        )


def list_account_commands(orders: Iterable[PlaceOrderRequest]) -> Steps:
    """Return the commands that open an account of each order's customer, and those that fund them."""
    accounts = {order.account_id: order.customer_id for order in orders}
    amount = Money(currency_code="EUR", units=FUNDS)
    opening = [
        OpenAccountRequest(account_id=account_id, owner_id=customer_id, currency_code="EUR")
        for account_id, customer_id in accounts.items()
    ]
    deposits = [
        DepositRequest(account_id=account_id, amount=amount, reference="for an order")
        for account_id in accounts
    ]
    return opening, deposits


def generate_orders(prefix: str, count: int, first: int) -> Iterator[PlaceOrderRequest]:
    """Yield orders that need no review: each of another customer, since many of one are suspicious."""
    for number, order in enumerate(requests.generate_orders(count, f"{prefix}-", first), first):
        order.customer_id = f"{prefix}-{number}"
        order.account_id = f"account-{prefix}-{number}"
        yield order


def list_steps(order: PlaceOrderRequest) -> Steps:
    """Return what the saga sends for a placed order until it is confirmed, with ids of the order."""
    deadline: Any = datetime.now(UTC) + CLAIM_LIFETIME
    claim = str(uuid5(NAMESPACE_OID, order.order_id))
    reserve = ReserveStockRequest(reservation_id=claim, deadline=deadline)
    reserve.lines.extend(
        ReservationLine(sku=line.sku, warehouse_id=order.warehouse_id, quantity=line.quantity)
        for line in order.lines
    )
    hold = PlaceHoldRequest(
        hold_id=claim,
        account_id=order.account_id,
        amount=sum_prices(order),
        reference=f"order {order.order_id}",
        deadline=deadline,
        customer_id=order.customer_id,
    )
    assess = AssessOrderRequest(customer_id=order.customer_id, order_id=order.order_id, order_version=1)
    firm = (FirmReservationRequest(reservation_id=claim), FirmHoldRequest(hold_id=claim))
    confirm = ConfirmOrderRequest(order_id=order.order_id, expected_version=1)
    steps = ((assess,), (reserve,), (hold,), firm, (confirm,))
    for number, command in enumerate(command for group in steps for command in group):
        command.request_id = str(uuid5(NAMESPACE_OID, f"{order.order_id}/{number}"))
    return steps


def sum_prices(order: PlaceOrderRequest) -> Money:
    """Return the total of an order whose lines are priced in one currency."""
    nanos = sum(
        line.quantity * (line.unit_price.units * 10**9 + line.unit_price.nanos) for line in order.lines
    )
    currency = order.lines[0].unit_price.currency_code
    return Money(currency_code=currency, units=nanos // 10**9, nanos=nanos % 10**9)


async def send_all(caller: Caller, commands: Iterable[Message], in_flight: int) -> None:
    """Send commands in order, some of them at once."""
    remaining = iter(commands)

    async def send() -> None:
        for command in remaining:
            await caller.send(command)

    await asyncio.gather(*(send() for _ in range(in_flight)))
