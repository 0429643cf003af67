"""`make demo`: orders on a stack of their own, each step shown as it happens and checked.

Everything is seen from outside: typed stubs call the two servers, PostgreSQL and JetStream are asked when
they took over. What is not as it should be ends the demo with exit code 1.
"""

import asyncio
import sys
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import grpc
from diptych.consistency.v1.consistency_pb2 import Receipt
from diptych.ordering.v1 import command_service_pb2 as commands
from diptych.ordering.v1 import query_service_pb2 as queries
from diptych.ordering.v1.command_service_pb2_grpc import CommandServiceStub
from diptych.ordering.v1.query_service_pb2_grpc import QueryServiceStub
from diptych.ordering.v1.types_pb2 import Order, OrderLine, ShippingAddress
from google.rpc import error_details_pb2, status_pb2
from google.type.money_pb2 import Money

from operations.stack import Stack
from operations.stacks import throwaway
from runtime import streams
from runtime.errors import StartError
from runtime.jetstream import Connection, connect

if TYPE_CHECKING:  # these exist for the type checker alone
    from diptych.ordering.v1.command_service_pb2_grpc import CommandServiceAsyncStub
    from diptych.ordering.v1.query_service_pb2_grpc import QueryServiceAsyncStub

STREAM_TYPE = "ordering.order"
GREEN = "\033[32m"

COMMITTED = "SELECT pg_xact_commit_timestamp(xmin) FROM events WHERE stream = $1 AND version = $2"


class Unexpected(Exception):
    """Something is not as the demo promises."""


@dataclass(frozen=True)
class Hops:
    """When a command got where, in milliseconds after its call."""

    answered: float
    committed: float
    published: float
    visible: float

    def __str__(self) -> str:
        return (
            f"committed {self.committed:.1f} ms · answered {self.answered:.1f} ms · "
            f"published {self.published:.1f} ms · visible {self.visible:.1f} ms"
        )


class Demo:
    """The steps, in their order."""

    def __init__(self, stack: Stack, nats: Connection) -> None:
        self._stack = stack
        self._nats = nats
        self._commands: CommandServiceAsyncStub = CommandServiceStub(
            grpc.aio.insecure_channel(stack.settings.command_address)
        )
        self._queries: QueryServiceAsyncStub = QueryServiceStub(
            grpc.aio.insecure_channel(stack.settings.query_address)
        )
        self._shop = self._bearer("ordering.write", "ordering.read")
        self._guest = self._bearer("ordering.read")
        self._customer = f"ada-{uuid4().hex[:6]}"

    async def run(self) -> None:
        """Do all steps.

        Raises:
            Unexpected: one went wrong.
        """
        say(f"Three orders of {self._customer}, each read back at once with its receipt's token")
        first, *_, last = [await self._place(quantity) for quantity in (1, 2, 3)]
        await self._repeat(first)
        await self._cancel(last)
        await self._refused(
            "A cancelled order cannot be confirmed",
            self._commands.ConfirmOrder(
                commands.ConfirmOrderRequest(request_id=str(uuid4()), order_id=last.order_id),
                metadata=self._shop,
            ),
            grpc.StatusCode.FAILED_PRECONDITION,
            "ORDER_ALREADY_CANCELLED",
        )
        await self._refused(
            "A guest may read orders, not place them",
            self._commands.PlaceOrder(order_of(self._customer, 1), metadata=self._guest),
            grpc.StatusCode.PERMISSION_DENIED,
            "SCOPE_MISSING",
        )
        await self._list(last)

    async def _place(self, quantity: int) -> "Placed":
        request = order_of(self._customer, quantity)
        began = datetime.now(UTC)
        receipt = (await self._commands.PlaceOrder(request, metadata=self._shop)).receipt
        answered = datetime.now(UTC)
        order = await self._get(receipt)
        visible = datetime.now(UTC)
        expect(order.state == Order.STATE_PLACED and order.version == 1, "the order is placed", order)
        expect(order.lines == request.lines, "the order has the lines that were asked for", order)
        hops = Hops(
            answered=_ms(began, answered),
            committed=_ms(began, await self._committed_at(receipt)),
            published=_ms(began, await self._published_at(receipt)),
            visible=_ms(began, visible),
        )
        say(f"  {receipt.aggregate_id}  {_amount(order.total):>10}  {hops}")
        return Placed(request, receipt, receipt.aggregate_id)

    async def _repeat(self, placed: "Placed") -> None:
        say("The first command once more, with the same request id")
        again = (await self._commands.PlaceOrder(placed.request, metadata=self._shop)).receipt
        expect(again == placed.receipt, "the answer is the first one, and nothing happened twice", again)

    async def _cancel(self, placed: "Placed") -> None:
        say(f"Cancelling {placed.order_id}, if it still is at version 1")
        request = commands.CancelOrderRequest(
            request_id=str(uuid4()), order_id=placed.order_id, reason="changed my mind", expected_version=1
        )
        receipt = (await self._commands.CancelOrder(request, metadata=self._shop)).receipt
        order = await self._get(receipt)
        expect(order.state == Order.STATE_CANCELLED, "it is cancelled, and reads so at once", order)

    async def _refused(self, what: str, call: Awaitable[Any], status: grpc.StatusCode, reason: str) -> None:
        say(what)
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            found = reason_of(error)
            expect((error.code(), found) == (status, reason), f"refused: {status.name}, {reason}", found)
        else:
            raise Unexpected(f"it was not refused: {answer}")

    async def _list(self, last: "Placed") -> None:
        say(f"All orders of {self._customer}, newest first, after everything that happened")
        request = queries.ListOrdersRequest(
            customer_id=self._customer, at_least_as_fresh=last.receipt.consistency_token
        )
        orders = (await self._queries.ListOrders(request, metadata=self._guest)).orders
        for order in orders:
            say(f"  {order.order_id}  {_amount(order.total):>10}  {Order.State.Name(order.state)}")
        states = [order.state for order in orders]
        expected = [Order.STATE_CANCELLED, Order.STATE_PLACED, Order.STATE_PLACED]
        expect(states == expected, "all three are there, the last one cancelled", states)

    async def _get(self, receipt: Receipt) -> Order:
        request = queries.GetOrderRequest(
            order_id=receipt.aggregate_id, at_least_as_fresh=receipt.consistency_token
        )
        return (await self._queries.GetOrder(request, metadata=self._shop)).order

    async def _committed_at(self, receipt: Receipt) -> datetime:
        connection = await asyncpg.connect(self._stack.settings.database_url)
        try:
            stream = streams.stream_name(STREAM_TYPE, receipt.aggregate_id)
            moment: datetime = await connection.fetchval(COMMITTED, stream, receipt.version)
            return moment
        finally:
            await connection.close()

    async def _published_at(self, receipt: Receipt) -> datetime:
        subject = streams.subject(streams.stream_name(STREAM_TYPE, receipt.aggregate_id))
        found = await self._nats.js.get_last_msg(streams.JETSTREAM, subject, direct=True)
        if found.time is None:
            raise Unexpected(f"JetStream does not say when it stored {subject}")
        return found.time

    def _bearer(self, *scopes: str) -> tuple[tuple[str, str]]:
        return (("authorization", f"Bearer {self._stack.token(*scopes)}"),)


@dataclass(frozen=True)
class Placed:
    """An order that was placed: what was asked, and the answer."""

    request: commands.PlaceOrderRequest
    receipt: Receipt
    order_id: str


def order_of(customer: str, quantity: int) -> commands.PlaceOrderRequest:
    """Return a customer's order of some lamps."""
    price = Money(currency_code="EUR", units=19, nanos=990_000_000)
    return commands.PlaceOrderRequest(
        request_id=str(uuid4()),
        customer_id=customer,
        lines=[OrderLine(sku="lamp-1", title="A lamp", quantity=quantity, unit_price=price)],
        shipping_address=ShippingAddress(
            recipient="Ada", address_lines=["Main Street 1"], locality="Berlin", region_code="DE"
        ),
        account_id="a-1",
        warehouse_id="w-1",
    )


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """Return the reason in an error's ErrorInfo, or nothing."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return str(info.reason)
    return ""


def expect(holds: bool, what: str, found: object) -> None:
    """Say that something holds, or end the demo."""
    if not holds:
        raise Unexpected(f"not so: {what}; found {found}")
    say(f"  ✓ {what}", GREEN)


def say(line: str, colour: str = "") -> None:
    """Print a line, in colour on a terminal."""
    sys.stdout.write(f"{colour}{line}\033[0m\n" if colour and sys.stdout.isatty() else f"{line}\n")
    sys.stdout.flush()


def _ms(began: datetime, moment: datetime) -> float:
    return (moment - began).total_seconds() * 1000


def _amount(money: Money) -> str:
    return f"{money.units}.{money.nanos // 10_000_000:02} {money.currency_code}"


async def main() -> None:
    """Start a stack with throw-away data, run the demo on it, and stop it.

    Raises:
        Unexpected, StartError: something went wrong.
    """
    with TemporaryDirectory(prefix="diptych-demo-", ignore_cleanup_errors=True) as folder:
        began = monotonic()
        say("Starting PostgreSQL, NATS, Valkey and Diptych's four processes, on free ports")
        async with throwaway(Path(folder), durable=True) as stack:
            say(f"  up after {monotonic() - began:.1f} s")
            async with await connect(stack.settings.nats_url, "demo") as nats:
                await Demo(stack, nats).run()
            say("Stopping")
        say("Done: every step was as it should be", GREEN)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (Unexpected, StartError, grpc.aio.AioRpcError) as error:
        sys.exit(f"The demo failed: {error}")
