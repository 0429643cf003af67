"""The demo's part about purchase orders: a reorder alert raises one, and its goods arrive in parts."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from diptych.inventory.v1 import command_service_pb2 as commands
from diptych.inventory.v1 import query_service_pb2 as queries
from diptych.inventory.v1.command_service_pb2_grpc import CommandServiceStub
from diptych.inventory.v1.query_service_pb2_grpc import QueryServiceStub
from diptych.inventory.v1.types_pb2 import (
    RECEIPT_REASON_OPENING,
    DeliveredLine,
    PurchaseOrder,
    ReorderTerms,
    ReservationLine,
)
from diptych_client import Rejection, aio
from google.type.money_pb2 import Money

from devstack.demo.narration import UnexpectedResult, check, print_line, print_step
from devstack.demo.polling import poll
from devstack.demo.requests import format_amount
from devstack.stack import Stack

SCOPES = ("inventory.write", "inventory.reserve", "inventory.read", "inventory.purchase")
SKU, WAREHOUSE, SUPPLIER, ORDERED = "tea-1", "w-1", "tea-house", 40
PRICE = Money(currency_code="EUR", units=300)


class PurchasingDemo:
    """Sells a product until it is low, and receives what was ordered instead.

    Args:
        stack: a stack with a process manager.
    """

    def __init__(self, stack: Stack) -> None:
        token = stack.token(*SCOPES)
        self._write = aio.connect(stack.settings.command_address, token=token, tls=stack.credentials or False)
        approver = stack.token("inventory.approve", subject="manager")  # who sets reorder terms may not
        self._approve = aio.connect(
            stack.settings.command_address, token=approver, tls=stack.credentials or False
        )
        self._read = aio.connect(stack.settings.query_address, token=token, tls=stack.credentials or False)
        self._commands: Any = CommandServiceStub(self._write.channel)
        self._queries: Any = QueryServiceStub(self._read.channel)
        self._day = (datetime.now(UTC) + timedelta(days=7)).date().isoformat()

    async def run(self) -> None:
        """Run all steps.

        Raises:
            UnexpectedResult, Rejection, OutcomeUnknown: a step had another result.
        """
        async with self._write, self._approve, self._read:
            print_step("Reserve stock down to its reorder point: the alert raises a purchase order")
            await self._supply()
            order = await self._wait_for_order()
            print_line(f"{ORDERED} {SKU} of {SUPPLIER} for {format_amount(order.total)}, {order.raised_by}")
            check(order.state == order.STATE_RAISED, "above 10,000 EUR another person has to approve", order)
            print_step("Approve it, send it to the supplier, and receive its goods in parts")
            id_ = order.purchase_order_id
            approval = commands.ApprovePurchaseOrderRequest(purchase_order_id=id_)
            approving: Any = CommandServiceStub(self._approve.channel)
            await self._approve.send(approving.ApprovePurchaseOrder, approval)
            sent = await self._send("SendToSupplier", purchase_order_id=id_, expected_on=self._day)
            await self._check_stock(sent, on_hand=10, expected=40)
            await self._check_stock(await self._receive(id_, "n-1", 25), on_hand=35, expected=15)
            await self._check_stock(await self._receive(id_, "n-1", 25), on_hand=35, expected=15)
            await self._check_stock(await self._receive(id_, "n-2", 15), on_hand=50, expected=0)
            print_step("Receive more than the order accepts, then close it")
            await self._expect_overdelivered(id_)
            closed = await self._send("ClosePurchaseOrder", purchase_order_id=id_, reason="complete")
            request = queries.GetPurchaseOrderRequest(purchase_order_id=id_)
            order = (
                await self._read.query(self._queries.GetPurchaseOrder, request, fresh=closed)
            ).purchase_order
            check(order.state == order.STATE_CLOSED, "closed, all of it received", order)

    async def _send(self, method: str, **fields: Any) -> Any:
        request = getattr(commands, f"{method}Request")(**fields)
        return await self._write.send(getattr(self._commands, method), request)

    async def _supply(self) -> None:
        place: dict[str, Any] = {"sku": SKU, "warehouse_id": WAREHOUSE}
        await self._send("RegisterProduct", sku=SKU, title="Tea", reorder_point=4)
        await self._send(
            "ReceiveStock", **place, quantity=10, reason=RECEIPT_REASON_OPENING, delivery_note="first"
        )
        terms = ReorderTerms(supplier_id=SUPPLIER, quantity=ORDERED, unit_price=PRICE)
        await self._send("SetReorderTerms", **place, terms=terms)
        line = ReservationLine(**place, quantity=6)
        deadline = datetime.now(UTC) + timedelta(hours=1)
        await self._send("ReserveStock", reservation_id=uuid4().hex, lines=[line], deadline=deadline)

    async def _wait_for_order(self) -> PurchaseOrder:
        request = queries.ListPurchaseOrdersRequest(supplier_id=SUPPLIER)

        async def read_states() -> list[PurchaseOrder.State.ValueType]:
            page = await self._read.query(self._queries.ListPurchaseOrders, request)
            return [order.state for order in page.purchase_orders]

        await poll(read_states, [PurchaseOrder.STATE_RAISED])
        orders = (await self._read.query(self._queries.ListPurchaseOrders, request)).purchase_orders
        check(len(orders) == 1, "one alert, one purchase order", orders)
        order: PurchaseOrder = orders[0]
        return order

    async def _receive(self, order_id: str, note: str, quantity: int) -> Any:
        lines = [DeliveredLine(sku=SKU, quantity=quantity)]
        return await self._send("ReceiveGoods", purchase_order_id=order_id, delivery_note=note, lines=lines)

    async def _check_stock(self, receipt: Any, *, on_hand: int, expected: int) -> None:
        request = queries.GetStockRequest(sku=SKU)
        stock = await self._read.query(self._queries.GetStock, request, fresh=receipt)
        found = (stock.on_hand, [(each.day, each.warehouse_id, each.quantity) for each in stock.expected])
        days = [(self._day, WAREHOUSE, expected)] if expected else []
        check(found == (on_hand, days), f"{on_hand} on hand, {expected} expected", found)

    async def _expect_overdelivered(self, order_id: str) -> None:
        try:
            await self._receive(order_id, "n-3", 5)
        except Rejection as rejection:
            reason = rejection.reason
            check(reason == "PURCHASE_ORDER_OVERDELIVERED", "rejected: PURCHASE_ORDER_OVERDELIVERED", reason)
        else:
            raise UnexpectedResult("five pieces too many were received")
