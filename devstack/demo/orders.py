"""The demo's first part: orders, command by command and hop by hop."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc
from diptych.consistency.v1.consistency_pb2 import Receipt
from diptych.ordering.v1 import command_service_pb2 as commands
from diptych.ordering.v1 import query_service_pb2 as queries
from diptych.ordering.v1.command_service_pb2_grpc import CommandServiceStub
from diptych.ordering.v1.query_service_pb2_grpc import QueryServiceStub
from diptych.ordering.v1.types_pb2 import Order

from devstack.demo import hops
from devstack.demo.narration import Unexpected, expect, legend, say, step
from devstack.demo.requests import amount, order_of, reason_of
from devstack.stack import Stack
from runtime.jetstream import Connection

if TYPE_CHECKING:  # these exist for the type checker alone
    from diptych.ordering.v1.command_service_pb2_grpc import CommandServiceAsyncStub
    from diptych.ordering.v1.query_service_pb2_grpc import QueryServiceAsyncStub


class Orders:
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

    async def run(self) -> dict[str, str]:
        """Do all steps; return the orders, each with the state that its fulfilment should come to.

        Raises:
            Unexpected: one went wrong.
        """
        requests = [order_of(self._customer, quantity) for quantity in (1, 2, 3)]
        step("Place three orders; read each back at once, with the consistency token of its receipt")
        legend()
        first, second, last = [await self._place(request) for request in requests]
        step("Send the first command again, with the same request id")
        await self._repeat(requests[0], first)
        step("Cancel the third order, provided that it is still at version 1")
        legend()
        cancelled = await self._cancel(last.aggregate_id)
        step("Confirm the cancelled order")
        confirm = commands.ConfirmOrderRequest(request_id=str(uuid4()), order_id=last.aggregate_id)
        await self._refused(
            self._commands.ConfirmOrder(confirm, metadata=self._shop),
            grpc.StatusCode.FAILED_PRECONDITION,
            "ORDER_ALREADY_CANCELLED",
        )
        step("Place an order as a guest, whose token has the scope ordering.read alone")
        await self._refused(
            self._commands.PlaceOrder(order_of(self._customer, 1), metadata=self._guest),
            grpc.StatusCode.PERMISSION_DENIED,
            "SCOPE_MISSING",
        )
        step("List the customer's orders, newest first, with the token of the cancellation")
        await self._list(cancelled)
        step("Watch the first order while it is confirmed and shipped")
        shipped = await self._watch(first.aggregate_id)
        step("Ask what happened to it, and what the customer's orders come to")
        await self._history(shipped)
        await self._summary(shipped)
        ends = ("FULFILLED", "CONFIRMED", "CANCELLED")
        return dict(zip((one.aggregate_id for one in (first, second, last)), ends, strict=True))

    async def _place(self, request: commands.PlaceOrderRequest) -> Receipt:
        order, receipt = await self._timed(lambda: self._commands.PlaceOrder(request, metadata=self._shop))
        as_placed = order.state == Order.STATE_PLACED and order.lines == request.lines
        expect(as_placed, f"placed, at version {order.version}, for {amount(order.total)}", order)
        return receipt

    async def _repeat(self, request: commands.PlaceOrderRequest, first: Receipt) -> None:
        again = (await self._commands.PlaceOrder(request, metadata=self._shop)).receipt
        expect(again == first, "the same answer; nothing happened twice", again)

    async def _cancel(self, order_id: str) -> Receipt:
        request = commands.CancelOrderRequest(
            request_id=str(uuid4()), order_id=order_id, reason="changed my mind", expected_version=1
        )
        order, receipt = await self._timed(lambda: self._commands.CancelOrder(request, metadata=self._shop))
        expect(order.state == Order.STATE_CANCELLED, f"cancelled, at version {order.version}", order)
        return receipt

    async def _timed(self, command: Callable[[], Awaitable[Any]]) -> tuple[Order, Receipt]:
        """Send a command, read its order back, and show how long each hop took."""
        called = datetime.now(UTC)
        receipt: Receipt = (await command()).receipt
        answered = datetime.now(UTC)
        get = queries.GetOrderRequest(
            order_id=receipt.aggregate_id, at_least_as_fresh=receipt.consistency_token
        )
        order = (await self._queries.GetOrder(get, metadata=self._shop)).order
        moments = {"called": called, "answered": answered, "visible": datetime.now(UTC)}
        database_url = self._stack.settings.database_url
        way = await hops.follow(receipt, "ordering.order", database_url, self._nats, **moments)
        times = (way.committed, way.answered, way.published, way.visible)
        say(f"{receipt.aggregate_id}{''.join(f'{time:11.1f}' for time in times)}")
        return order, receipt

    async def _refused(self, call: Awaitable[Any], status: grpc.StatusCode, reason: str) -> None:
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            found = reason_of(error)
            expect((error.code(), found) == (status, reason), f"refused: {status.name}, {reason}", found)
        else:
            raise Unexpected(f"it was not refused: {answer}")

    async def _list(self, cancelled: Receipt) -> None:
        request = queries.ListOrdersRequest(
            customer_id=self._customer, at_least_as_fresh=cancelled.consistency_token
        )
        orders = (await self._queries.ListOrders(request, metadata=self._guest)).orders
        for order in orders:
            say(f"{order.order_id}{amount(order.total):>11}  {Order.State.Name(order.state)}")
        states = [order.state for order in orders]
        expected = [Order.STATE_CANCELLED, Order.STATE_PLACED, Order.STATE_PLACED]
        expect(states == expected, "all three, the newest cancelled", states)

    async def _watch(self, order_id: str) -> Receipt:
        watched = queries.WatchOrderRequest(order_id=order_id)
        watch = aiter(self._queries.WatchOrder(watched, metadata=self._guest))
        states = [(await anext(watch)).order.state]
        confirm = commands.ConfirmOrderRequest(request_id=str(uuid4()), order_id=order_id)
        await self._commands.ConfirmOrder(confirm, metadata=self._shop)
        states.append((await anext(watch)).order.state)
        ship = commands.ShipOrderRequest(
            request_id=str(uuid4()), order_id=order_id, carrier="Swift", tracking_code="S-17"
        )
        receipt = (await self._commands.ShipOrder(ship, metadata=self._shop)).receipt
        states.append((await anext(watch)).order.state)
        expected = [Order.STATE_PLACED, Order.STATE_CONFIRMED, Order.STATE_SHIPPED]
        told = ", ".join(Order.State.Name(state) for state in states)
        expect(states == expected, f"told of {told}", states)
        return receipt

    async def _history(self, shipped: Receipt) -> None:
        request = queries.GetOrderHistoryRequest(
            order_id=shipped.aggregate_id, at_least_as_fresh=shipped.consistency_token
        )
        entries = (await self._queries.GetOrderHistory(request, metadata=self._guest)).entries
        for entry in entries:
            what = entry.event_type.rpartition(".")[2]
            say(f"{entry.version}  {what:15} by {entry.actor} on {entry.command.rpartition('.')[2]}")
        versions = [entry.version for entry in entries]
        expect(versions == [3, 2, 1], "all that happened, newest first", versions)

    async def _summary(self, shipped: Receipt) -> None:
        request = queries.GetCustomerSummaryRequest(
            customer_id=self._customer, at_least_as_fresh=shipped.consistency_token
        )
        summary = (await self._queries.GetCustomerSummary(request, metadata=self._guest)).summary
        for each in summary.states:
            totals = ", ".join(amount(total) for total in each.totals)
            say(f"{Order.State.Name(each.state):16} {each.order_count}  {totals}")
        counts = {each.state: each.order_count for each in summary.states}
        expected = dict.fromkeys((Order.STATE_PLACED, Order.STATE_CANCELLED, Order.STATE_SHIPPED), 1)
        expect(counts == expected, "one of each", counts)

    def _bearer(self, *scopes: str) -> tuple[tuple[str, str]]:
        return (("authorization", f"Bearer {self._stack.token(*scopes)}"),)
