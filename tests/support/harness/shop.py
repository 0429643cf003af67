"""A client of a stack that places and reads orders at all of its servers in turn."""

from collections.abc import Iterator
from itertools import cycle
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc
from diptych.consistency.v1.consistency_pb2 import Receipt
from diptych.ordering.v1 import command_service_pb2 as commands
from diptych.ordering.v1 import query_service_pb2 as queries
from diptych.ordering.v1.command_service_pb2_grpc import CommandServiceStub
from diptych.ordering.v1.query_service_pb2_grpc import QueryServiceStub
from diptych.ordering.v1.types_pb2 import Order, OrderLine, ShippingAddress
from google.type.money_pb2 import Money

from devstack.stack import Stack
from operations.processes import COMMAND_SERVER, QUERY_SERVER
from tests.support.harness.bearer import Bearer, bearer

if TYPE_CHECKING:  # these exist for the type checker alone
    from diptych.ordering.v1.command_service_pb2_grpc import CommandServiceAsyncStub
    from diptych.ordering.v1.query_service_pb2_grpc import QueryServiceAsyncStub


class Shop:
    """Calls the command servers and the query servers of a stack in turn."""

    def __init__(self, stack: Stack, subject: str = "alice") -> None:
        self.stack = stack
        self.bearer: Bearer = bearer(
            stack,
            *("ordering.place", "ordering.own-prices", "ordering.confirm", "ordering.read"),
            subject=subject,
        )
        self._channels = [
            grpc.aio.insecure_channel(process.address)
            for process in (*stack.of(COMMAND_SERVER), *stack.of(QUERY_SERVER))
        ]
        split = len(stack.of(COMMAND_SERVER))
        self._commands: Iterator[CommandServiceAsyncStub] = cycle(
            [CommandServiceStub(channel) for channel in self._channels[:split]]
        )
        self._queries: Iterator[QueryServiceAsyncStub] = cycle(
            [QueryServiceStub(channel) for channel in self._channels[split:]]
        )

    async def place(self, request: commands.PlaceOrderRequest, *metadata: tuple[str, str]) -> Receipt:
        call = next(self._commands).PlaceOrder(request, metadata=(*self.bearer, *metadata))
        return (await call).receipt

    async def confirm(self, order_id: str) -> Receipt:
        request = commands.ConfirmOrderRequest(request_id=str(uuid4()), order_id=order_id)
        return (await next(self._commands).ConfirmOrder(request, metadata=self.bearer)).receipt

    async def cancel(self, order_id: str, reason: str = "changed my mind", **more: Any) -> Receipt:
        request = commands.CancelOrderRequest(
            request_id=str(uuid4()), order_id=order_id, reason=reason, **more
        )
        return (await next(self._commands).CancelOrder(request, metadata=self.bearer)).receipt

    async def get(self, order_id: str, token: str = "") -> Order:
        request = queries.GetOrderRequest(order_id=order_id, at_least_as_fresh=token)
        call = next(self._queries).GetOrder(request, metadata=self.bearer)
        return (await call).order

    async def list(self, **filters: Any) -> list[Order]:
        """Return the orders of all pages; each page comes from the next server."""
        orders: list[Order] = []
        page_token = ""
        while True:
            request = queries.ListOrdersRequest(page_token=page_token, **filters)
            page = await next(self._queries).ListOrders(request, metadata=self.bearer)
            orders += page.orders
            page_token = page.next_page_token
            if not page_token:
                return orders

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


def order_of(customer: str, **more: Any) -> commands.PlaceOrderRequest:
    price = Money(currency_code="EUR", units=9, nanos=990_000_000)
    return commands.PlaceOrderRequest(
        request_id=str(uuid4()),
        customer_id=customer,
        lines=[OrderLine(sku="sku-1", title="A thing", quantity=3, unit_price=price)],
        shipping_address=ShippingAddress(
            recipient="Ada", address_lines=["Main Street 1"], locality="Berlin", region_code="DE"
        ),
        account_id="a-1",
        warehouse_id="w-1",
        **more,
    )
