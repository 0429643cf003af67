"""The demo's part about single orders, with the timings of each command."""

from collections.abc import Awaitable, Callable
from dataclasses import astuple
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import grpc
from diptych.catalogue.v1 import command_service_pb2 as catalogue
from diptych.catalogue.v1.command_service_pb2_grpc import CommandServiceStub as CatalogueStub
from diptych.catalogue.v1.types_pb2 import Attribute, ProductDetails
from diptych.consistency.v1.consistency_pb2 import Receipt
from diptych.ordering.v1 import command_service_pb2 as commands
from diptych.ordering.v1 import query_service_pb2 as queries
from diptych.ordering.v1.command_service_pb2_grpc import CommandServiceStub
from diptych.ordering.v1.query_service_pb2_grpc import QueryServiceStub
from diptych.ordering.v1.types_pb2 import Order, OrderCard
from diptych_client import Rejection, aio

from devstack.demo import timings
from devstack.demo.narration import UnexpectedResult, check, print_legend, print_line, print_step
from devstack.demo.requests import format_amount, order_of
from devstack.stack import Stack
from runtime.jetstream import Connection

if TYPE_CHECKING:  # these exist for the type checker alone
    from diptych.ordering.v1.command_service_pb2_grpc import CommandServiceAsyncStub
    from diptych.ordering.v1.query_service_pb2_grpc import QueryServiceAsyncStub

WRITE_SCOPES = (
    *("ordering.place", "ordering.own-prices", "ordering.confirm", "ordering.ship"),
    "catalogue.write",
)


class OrderingDemo:
    """Places, repeats, cancels, rejects, lists and watches orders.

    Args:
        stack: the stack.
        nats: a connection to its NATS.
        customer_id: who orders; a customer without earlier orders.
    """

    def __init__(self, stack: Stack, nats: Connection, customer_id: str) -> None:
        self._stack = stack
        self._nats = nats
        read_scopes = ("ordering.read", "ordering.all")
        write = stack.token(*WRITE_SCOPES, *read_scopes)
        read = stack.token(*read_scopes)
        self._write = aio.connect(stack.settings.command_address, token=write, tls=stack.credentials or False)
        self._guest = aio.connect(stack.settings.command_address, token=read, tls=stack.credentials or False)
        self._read = aio.connect(stack.settings.query_address, token=read, tls=stack.credentials or False)
        self._commands: CommandServiceAsyncStub = CommandServiceStub(self._write.channel)
        self._catalogue: Any = CatalogueStub(self._write.channel)
        self._guest_commands: CommandServiceAsyncStub = CommandServiceStub(self._guest.channel)
        self._queries: QueryServiceAsyncStub = QueryServiceStub(self._read.channel)
        self._customer = customer_id

    async def run(self) -> dict[str, str]:
        """Run all steps; return the expected fulfilment state of each order by its id.

        Raises:
            UnexpectedResult, OutcomeUnknown: a step had another result.
        """
        async with self._write, self._guest, self._read:
            return await self._run_steps()

    async def _run_steps(self) -> dict[str, str]:
        requests = [order_of(self._customer, quantity) for quantity in (1, 2, 3)]
        print_step("Place three orders; read each back at once, with the consistency token of its receipt")
        print_legend()
        first, second, last = [await self._place(request) for request in requests]
        print_step("Send the first command again, with the same request id")
        await self._repeat(requests[0], first)
        print_step("Cancel the third order, provided that it is still at version 1")
        print_legend()
        cancelled = await self._cancel(last.aggregate_id)
        print_step("Confirm the cancelled order")
        confirm = commands.ConfirmOrderRequest(order_id=last.aggregate_id)
        await self._expect_error(
            self._write.send(self._commands.ConfirmOrder, confirm),
            grpc.StatusCode.FAILED_PRECONDITION,
            "ORDER_ALREADY_CANCELLED",
        )
        print_step("Place an order as a guest, whose token has the scope ordering.read alone")
        await self._expect_error(
            self._guest.send(self._guest_commands.PlaceOrder, order_of(self._customer, 1)),
            grpc.StatusCode.PERMISSION_DENIED,
            "SCOPE_MISSING",
        )
        print_step("List the customer's orders, newest first, with the token of the cancellation")
        await self._list(cancelled)
        print_step("Watch the first order while it is confirmed and shipped")
        shipped = await self._watch(first.aggregate_id)
        print_step("Read its history, and the customer's summary")
        await self._show_history(shipped)
        await self._show_summary(shipped)
        print_step("Rename the ordered product; list the customer's orders as cards, the largest first")
        await self._show_cards()
        final_states = ("FULFILLED", "CONFIRMED", "CANCELLED")
        return dict(
            zip((receipt.aggregate_id for receipt in (first, second, last)), final_states, strict=True)
        )

    async def _place(self, request: commands.PlaceOrderRequest) -> Receipt:
        order, receipt = await self._measure(lambda: self._write.send(self._commands.PlaceOrder, request))
        as_placed = order.state == Order.STATE_PLACED and order.shipping_groups[0].lines == request.lines
        check(as_placed, f"placed, at version {order.version}, for {format_amount(order.total)}", order)
        return receipt

    async def _repeat(self, request: commands.PlaceOrderRequest, first: Receipt) -> None:
        second = await self._write.send(self._commands.PlaceOrder, request)
        check(second == first, "the same receipt, and one effect", second)

    async def _cancel(self, order_id: str) -> Receipt:
        request = commands.CancelOrderRequest(order_id=order_id, reason="changed my mind", expected_version=1)
        order, receipt = await self._measure(lambda: self._write.send(self._commands.CancelOrder, request))
        check(order.state == Order.STATE_CANCELLED, f"cancelled, at version {order.version}", order)
        return receipt

    async def _measure(self, command: Callable[[], Awaitable[Receipt]]) -> tuple[Order, Receipt]:
        """Send a command, read its order back, and print the timings."""
        called = datetime.now(UTC)
        receipt = await command()
        answered = datetime.now(UTC)
        get = queries.GetOrderRequest(order_id=receipt.aggregate_id)
        order = (await self._read.query(self._queries.GetOrder, get, fresh=receipt)).order
        moments = {"called": called, "answered": answered, "visible": datetime.now(UTC)}
        database_url = self._stack.settings.database_url
        command_timings = await timings.measure(
            receipt, "ordering.order", database_url, self._nats, **moments
        )
        times = astuple(command_timings)
        print_line(f"{receipt.aggregate_id}{''.join(f'{time:11.1f}' for time in times)}")
        return order, receipt

    async def _expect_error(self, call: Awaitable[Any], status: grpc.StatusCode, reason: str) -> None:
        try:
            response = await call
        except Rejection as rejection:
            as_expected = (rejection.code, rejection.reason) == (status, reason)
            check(as_expected, f"rejected: {status.name}, {reason}", rejection)
        else:
            raise UnexpectedResult(f"the call was not rejected: {response}")

    async def _list(self, cancelled: Receipt) -> None:
        request = queries.ListOrdersRequest(customer_id=self._customer)
        orders = (await self._read.query(self._queries.ListOrders, request, fresh=cancelled)).orders
        for order in orders:
            print_line(f"{order.order_id}{format_amount(order.total):>11}  {Order.State.Name(order.state)}")
        states = [order.state for order in orders]
        expected = [Order.STATE_CANCELLED, Order.STATE_PLACED, Order.STATE_PLACED]
        check(states == expected, "all three, the newest cancelled", states)

    async def _watch(self, order_id: str) -> Receipt:
        confirm = commands.ConfirmOrderRequest(order_id=order_id)
        ship = commands.ShipOrderRequest(order_id=order_id, carrier="Swift", tracking_code="S-17")
        watched = queries.WatchOrderRequest(order_id=order_id)
        async with self._read.watch(self._queries.WatchOrder, watched) as watch:
            states = [(await anext(watch)).order.state]
            await self._write.send(self._commands.ConfirmOrder, confirm)
            states.append((await anext(watch)).order.state)
            receipt = await self._write.send(self._commands.ShipOrder, ship)
            states.append((await anext(watch)).order.state)
        expected = [Order.STATE_PLACED, Order.STATE_CONFIRMED, Order.STATE_SHIPPED]
        names = ", ".join(Order.State.Name(state) for state in states)
        check(states == expected, f"received {names}", states)
        return receipt

    async def _show_history(self, shipped: Receipt) -> None:
        request = queries.GetOrderHistoryRequest(order_id=shipped.aggregate_id)
        entries = (await self._read.query(self._queries.GetOrderHistory, request, fresh=shipped)).entries
        for entry in entries:
            event_type = entry.event_type.rpartition(".")[2]
            print_line(
                f"{entry.version}  {event_type:15} by {entry.actor} on {entry.command.rpartition('.')[2]}"
            )
        versions = [entry.version for entry in entries]
        check(versions == [3, 2, 1], "all that happened, newest first", versions)

    async def _show_summary(self, shipped: Receipt) -> None:
        request = queries.GetCustomerSummaryRequest(customer_id=self._customer)
        response = await self._read.query(self._queries.GetCustomerSummary, request, fresh=shipped)
        summary = response.summary
        for group in summary.states:
            totals = ", ".join(format_amount(total) for total in group.totals)
            print_line(f"{Order.State.Name(group.state):16} {group.order_count}  {totals}")
        counts = {group.state: group.order_count for group in summary.states}
        expected = dict.fromkeys((Order.STATE_PLACED, Order.STATE_CANCELLED, Order.STATE_SHIPPED), 1)
        check(counts == expected, "one of each", counts)

    async def _show_cards(self) -> None:
        details = ProductDetails(title="A reading lamp", attributes=[Attribute(name="colour", value="white")])
        rename = catalogue.ChangeDetailsRequest(sku="lamp-1", details=details)
        renamed = await self._write.send(self._catalogue.ChangeDetails, rename)
        request = queries.ListOrderCardsRequest(
            customer_id=self._customer, sort=queries.ListOrderCardsRequest.SORT_TOTAL, currency_code="EUR"
        )
        cards = (await self._read.query(self._queries.ListOrderCards, request, fresh=renamed)).cards
        for card in cards:
            print_line(f"{format_amount(card.order.total):>12}  {', '.join(_list_titles(card))}")
        totals = [(card.order.total.units, card.order.total.nanos) for card in cards]
        check(totals == sorted(totals, reverse=True) and len(totals) == 3, "three, the largest first", totals)
        titles = [_list_titles(card) for card in cards]
        check(all(details.title in each for each in titles), "each has the new title", titles)


def _list_titles(card: OrderCard) -> list[str]:
    return [product.title for product in card.products]
