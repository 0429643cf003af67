"""Inventory through the whole stack: deliveries, reservations, transfers and alerts, with their views."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import grpc
import pytest
from diptych.inventory.v1 import command_service_pb2 as commands
from diptych.inventory.v1 import query_service_pb2 as queries
from diptych.inventory.v1.types_pb2 import (
    RECEIPT_REASON_OPENING,
    DeliveredLine,
    PurchaseLine,
    PurchaseOrder,
    ReorderAlert,
    Reservation,
    ReservationLine,
    StockMovement,
)
from google.type.money_pb2 import Money

from devstack.stack import Stack
from operations.verify.verification import verify
from tests.support.harness.caller import Caller
from tests.support.harness.rpc_failure import reason_of
from tests.support.harness.waiting import until

SCOPES = ("inventory.write", "inventory.reserve", "inventory.purchase", "inventory.approve", "inventory.read")
CALLERS, PIECES = 64, 10


@pytest.fixture
async def caller(stack: Stack) -> AsyncIterator[Caller]:
    caller = Caller(stack, *SCOPES)
    yield caller
    await caller.close()


@pytest.fixture
async def sku(caller: Caller) -> str:
    """A product for one test; its name contains characters that are special in keys."""
    sku = f"tea: green/{{{uuid4().hex[:8]}}}"
    await caller.execute(commands.RegisterProductRequest(sku=sku, title="Green tea", reorder_point=2))
    return sku


def receive(sku: str, quantity: int, warehouse: str = "w-1", note: str = "n-1") -> Any:
    return commands.ReceiveStockRequest(
        sku=sku,
        warehouse_id=warehouse,
        quantity=quantity,
        reason=RECEIPT_REASON_OPENING,
        delivery_note=note,
    )


def reserve(sku: str, quantity: int, id_: str = "", warehouse: str = "w-1") -> Any:
    request = commands.ReserveStockRequest(
        reservation_id=id_ or uuid4().hex,
        lines=[ReservationLine(sku=sku, warehouse_id=warehouse, quantity=quantity)],
    )
    request.deadline.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    return request


async def test_many_callers_get_exactly_the_pieces_in_stock(caller: Caller, sku: str) -> None:
    await caller.execute(receive(sku, PIECES))

    async def one() -> str:
        try:
            await caller.execute(reserve(sku, 1))
        except grpc.aio.AioRpcError as error:
            return reason_of(error)
        return "OK"

    outcomes = await asyncio.gather(*(one() for _ in range(CALLERS)))
    assert sorted(set(outcomes)) == ["OK", "STOCK_INSUFFICIENT"]
    assert outcomes.count("OK") == PIECES


async def test_stock_is_reported_in_total_and_by_warehouse(caller: Caller, sku: str) -> None:
    await caller.execute(receive(sku, 10))
    await caller.execute(receive(sku, 5, "w-2"))
    await caller.execute(reserve(sku, 3))
    sent = await caller.execute(
        commands.TransferStockRequest(
            transfer_id=uuid4().hex, sku=sku, from_warehouse_id="w-1", to_warehouse_id="w-2", quantity=4
        )
    )
    stock = await caller.query(queries.GetStockRequest(sku=sku, at_least_as_fresh=sent.consistency_token))
    levels = [(s.warehouse_id, s.on_hand, s.reserved, s.available, s.in_transit) for s in stock.stocks]
    assert levels == [("w-1", 6, 3, 3, 0), ("w-2", 5, 0, 5, 4)]
    assert (stock.on_hand, stock.reserved, stock.available, stock.in_transit) == (11, 3, 8, 4)
    request = queries.GetProductRequest(sku=sku, at_least_as_fresh=sent.consistency_token)
    product = (await caller.query(request)).product
    assert (product.title, list(product.warehouse_ids)) == ("Green tea", ["w-1", "w-2"])


async def test_a_reservation_has_its_end(caller: Caller, sku: str) -> None:
    await caller.execute(receive(sku, 5))
    made = await caller.execute(reserve(sku, 2))
    id_ = made.aggregate_id
    await caller.execute(commands.FirmReservationRequest(reservation_id=id_))
    assert await caller.rejection_reason(reserve(sku, 3, id_)) == "RESERVATION_EXISTS"
    gone = await caller.execute(commands.CommitReservationRequest(reservation_id=id_))
    found = await caller.query(
        queries.GetReservationRequest(reservation_id=id_, at_least_as_fresh=gone.consistency_token)
    )
    assert (found.reservation.state, found.reservation.version) == (Reservation.STATE_COMMITTED, 3)
    assert (
        await caller.rejection_reason(queries.GetReservationRequest(reservation_id="x"))
        == "RESERVATION_NOT_FOUND"
    )
    assert await caller.rejection_reason(queries.GetStockRequest(sku="no such thing")) == "STOCK_NOT_FOUND"


async def test_the_token_of_the_largest_reservation_is_accepted(caller: Caller) -> None:
    """It names the streams of 100 stocks and of the reservation."""
    skus = [f"bulk {uuid4().hex}" for _ in range(100)]
    for request in (
        lambda sku: commands.RegisterProductRequest(sku=sku, title="Bulk"),
        lambda sku: receive(sku, 1),
    ):
        await asyncio.gather(*(caller.execute(request(sku)) for sku in skus))
    request = reserve(skus[0], 1)
    request.lines.extend(ReservationLine(sku=sku, warehouse_id="w-1", quantity=1) for sku in skus[1:])
    made = await caller.execute(request)
    for query in (
        queries.GetReservationRequest(reservation_id=made.aggregate_id),
        queries.GetStockRequest(sku=skus[99]),
    ):
        query.at_least_as_fresh = made.consistency_token
        await caller.query(query)


@pytest.mark.parametrize("page_size", [1, 3, 100])
async def test_a_skus_ledger_is_paged_over_all_its_warehouses(
    caller: Caller, sku: str, page_size: int
) -> None:
    for n in range(4):
        await caller.execute(receive(sku, 3, "w-1", f"n-{n}"))
        other = await caller.execute(receive(sku, 2, "w-2", f"n-{n}"))
    last = await caller.execute(reserve(sku, 1))
    await caller.query(queries.GetStockMovementsRequest(sku=sku, at_least_as_fresh=other.consistency_token))
    found: list[StockMovement] = []
    request = queries.GetStockMovementsRequest(
        sku=sku, page_size=page_size, at_least_as_fresh=last.consistency_token
    )
    while True:
        page = await caller.query(request)
        assert len(page.movements) <= page_size
        found += page.movements
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert [m.quantity for m in found] == [1, 2, 3, 2, 3, 2, 3, 2, 3]
    assert [m.on_hand for m in found if m.warehouse_id == "w-1"] == [12, 12, 9, 6, 3]
    assert {m.actor for m in found} == {"alice"}
    one = await caller.query(queries.GetStockMovementsRequest(sku=sku, warehouse_id="w-2"))
    assert [m.quantity for m in one.movements] == [2] * 4


async def test_a_purchase_order_raises_the_stock_as_its_goods_arrive(
    stack: Stack, caller: Caller, sku: str
) -> None:
    supplier, id_, day = uuid4().hex, uuid4().hex, "2199-01-31"
    line = PurchaseLine(sku=sku, quantity=20, unit_price=Money(currency_code="EUR", units=501))
    await caller.execute(
        commands.RaisePurchaseOrderRequest(
            purchase_order_id=id_, supplier_id=supplier, warehouse_id="w-1", lines=[line]
        )
    )
    approval = commands.ApprovePurchaseOrderRequest(purchase_order_id=id_)
    assert await caller.rejection_reason(approval) == "PURCHASE_ORDER_SAME_CALLER"
    other = Caller(stack, "inventory.approve", subject="bob")
    await other.execute(approval)
    await other.close()

    async def read_stock(token: str) -> tuple[int, list[tuple[str, str, int]]]:
        found = await caller.query(queries.GetStockRequest(sku=sku, at_least_as_fresh=token))
        return found.on_hand, [(each.day, each.warehouse_id, each.quantity) for each in found.expected]

    sent = await caller.execute(commands.SendToSupplierRequest(purchase_order_id=id_, expected_on=day))
    assert await read_stock(sent.consistency_token) == (0, [(day, "w-1", 20)])
    part = commands.ReceiveGoodsRequest(
        purchase_order_id=id_, delivery_note="n-1", lines=[DeliveredLine(sku=sku, quantity=12)]
    )
    received = await caller.execute(part)
    assert await read_stock(received.consistency_token) == (12, [(day, "w-1", 8)])
    listed = await caller.query(
        queries.ListPurchaseOrdersRequest(
            supplier_id=supplier,
            state=PurchaseOrder.STATE_SENT,
            at_least_as_fresh=received.consistency_token,
        )
    )
    assert [(each.approved_by, each.lines[0].received) for each in listed.purchase_orders] == [("bob", 12)]
    closed = await caller.execute(
        commands.ClosePurchaseOrderRequest(purchase_order_id=id_, reason="the rest is late")
    )
    assert await read_stock(closed.consistency_token) == (12, [])
    found = await caller.query(
        queries.GetPurchaseOrderRequest(purchase_order_id=id_, at_least_as_fresh=closed.consistency_token)
    )
    assert (found.purchase_order.state, found.purchase_order.version) == (PurchaseOrder.STATE_CLOSED, 5)
    movements = await caller.query(
        queries.GetStockMovementsRequest(sku=sku, at_least_as_fresh=received.consistency_token)
    )
    assert [(each.reference, each.quantity) for each in movements.movements] == [(id_, 12)]


async def test_low_stock_is_listed_until_there_is_enough(caller: Caller, sku: str) -> None:
    warehouse = uuid4().hex

    async def low(token: str) -> list[str]:
        stocks = await caller.query(
            queries.ListStockRequest(warehouse_id=warehouse, low=True, at_least_as_fresh=token)
        )
        alerts = await caller.query(
            queries.ListReorderAlertsRequest(warehouse_id=warehouse, at_least_as_fresh=token)
        )
        assert [s.sku for s in stocks.stocks] == [a.sku for a in alerts.alerts]
        return [s.sku for s in stocks.stocks]

    first = await caller.execute(receive(sku, 2, warehouse))
    assert await low(first.consistency_token) == [sku]
    second = await caller.execute(receive(sku, 1, warehouse, "n-2"))
    assert await low(second.consistency_token) == []
    listed = await caller.query(queries.ListStockRequest(warehouse_id=warehouse))
    assert [(s.sku, s.on_hand) for s in listed.stocks] == [(sku, 3)]


async def test_an_alert_is_watched_once_raised_and_once_cleared(caller: Caller, sku: str) -> None:
    watch = caller.watch(queries.WatchReorderAlertsRequest())
    states: list[int] = []

    async def follow() -> None:
        async for answer in watch:
            if answer.alert.sku == sku:
                states.append(answer.alert.state)
                if answer.alert.state == ReorderAlert.STATE_CLEARED:
                    return

    async with asyncio.TaskGroup() as group:
        group.create_task(follow())
        raised = await caller.execute(receive(sku, 1))
        for n in range(3):  # moves the stock, not the alert
            id_ = (await caller.execute(reserve(sku, 1))).aggregate_id
            raised = await caller.execute(
                commands.ReleaseReservationRequest(reservation_id=id_, reason=f"changed my mind {n}")
            )
            await caller.query(queries.ListReorderAlertsRequest(at_least_as_fresh=raised.consistency_token))
        await until(lambda: bool(states))
        await caller.execute(receive(sku, 5, note="n-2"))
    assert states == [ReorderAlert.STATE_RAISED, ReorderAlert.STATE_CLEARED]


async def test_all_derived_data_equals_an_independent_fold(stack: Stack, caller: Caller) -> None:
    report = await verify(stack.settings)
    assert report.clean, report.to_text()
    assert report.counts["views"] > 0
