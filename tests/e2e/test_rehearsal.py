"""Rehearsals of changed code over the traffic of all contexts; test_fulfilment.py has some for every day."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from diptych.ordering.v1 import command_service_pb2 as ordering
from diptych.ordering.v1.events_pb2 import OrderPlaced

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.rehearse.rehearsal import Options, rehearse
from tests.support.harness.caller import Caller
from tests.support.harness.command_line import diptych
from tests.support.harness.invariants import verify_stack
from tests.support.harness.planted_changes import Change, list_differences, plant, rehearse_copy
from tests.support.harness.trade import PRICE, SCOPES, Trade

pytestmark = pytest.mark.long

ORDERS = 12
PLANT_ORDER = """
WITH begun AS (
  INSERT INTO streams (id, type, version, updated_at, state_version, fingerprint)
  VALUES ($1, 'ordering.order', 1, now(), 0, '')
), placed AS (
  INSERT INTO events (stream, version, type, data, metadata, recorded_at)
  VALUES ($1, 1, 'diptych.ordering.v1.OrderPlaced', $2, '{}', now()) RETURNING position
)
INSERT INTO outbox (position) SELECT position FROM placed
"""
"""Adds an order that was placed by a release of which the event had no shipping groups."""
CHANGES = {
    "an order's status": Change(
        "command_server/contexts/ordering/domain/order.py",
        "return replace(order, status=Status.CONFIRMED)",
        "return replace(order, status=Status.SHIPPED)",
        ("states", "ordering.order.status"),
    ),
    "a stock's reserved pieces": Change(
        "command_server/contexts/inventory/domain/stock.py",
        "return replace(stock, on_hand=event.on_hand, reserved=event.reserved)",
        "return replace(stock, on_hand=event.on_hand)",
        ("states", "inventory.stock.reserved"),
    ),
    "a forgotten field": Change(
        "projector/projections/banking/hold.py",
        "    hold.captured.CopyFrom(event.amount)\n",
        "",
        ("views", "banking.hold.captured"),
    ),
    "a wrong sum": Change(
        "projector/projections/inventory/stock.py",
        "stock.available = event.on_hand - event.reserved",
        "stock.available = event.on_hand",
        ("views", "inventory.stock.available"),
    ),
    "a lost index entry": Change(
        "projector/projections/ordering/order.py",
        '        (VIEW.index("all"), member),\n',
        "",
        ("entries", "ordering.order.all"),
    ),
    "a doubled contribution": Change(
        "projector/projections/ordering/order.py",
        '(customer, f"orders/{state}", 1),',
        '(customer, f"orders/{state}", 2),',
        ("contributions", "ordering.order.customer"),
    ),
    "a wrong actor in the histories": Change(
        "projector/history.py",
        '"actor": "actor",',
        '"actor": "command",',
        ("history", "ordering.order_history.history"),
    ),
    "an upcaster": Change(
        "contracts/events/ordering.py",
        "        warehouse_id=event.warehouse_id,\n",
        "",
        ("views", "ordering.order.shipping_groups[*].warehouse_id"),
    ),
    "a command without its event": Change(
        "command_server/contexts/inventory/domain/reservation.py",
        "return {name: [ReservationFirmed(id_, firmed_at=now)]}",
        "return {}",
        ("commands", "inventory.FirmReservation.events"),
    ),
    "another step": Change(
        "process_manager/sagas/fulfilment/plan.py",
        "return fulfilment, steps or [requests.confirm(fulfilment)]",
        "return fulfilment, steps or [requests.hold_order(fulfilment)]",
        ("steps", "fulfilment.fulfilment.confirm"),
    ),
    "another request": Change(
        "process_manager/sagas/fulfilment/requests.py",
        "CLAIM_LIFETIME = timedelta(hours=1)",
        "CLAIM_LIFETIME = timedelta(hours=2)",
        ("steps", "fulfilment.fulfilment.reserve.deadline"),
    ),
    "a status for people": Change(
        "process_manager/sagas/fulfilment/__init__.py",
        'return SagaStatus("CONFIRMED", False, None, "shipment", blocked_reason)',
        'return SagaStatus("CONFIRMED", False, None, "delivery", blocked_reason)',
        ("sagas", "fulfilment.fulfilment.waiting_for"),
    ),
    "a saga that counts wrongly": Change(
        "process_manager/sagas/deadlines.py",
        "tries=expiry.tries + 1",
        "tries=expiry.tries + 2",
        ("steps", "banking.hold_deadline.expire"),
    ),
}


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    stack = temporary_stack(tmp_path_factory.mktemp("rehearsal"), process_managers=1)
    async with stack:
        caller = Caller(stack, *SCOPES)
        await trade_everything(stack, Trade(caller))
        await caller.close()
        report = await verify_stack(stack)
        assert report.clean, report.to_text()
        yield stack


async def trade_everything(stack: Stack, trade: Trade) -> None:
    """Let orders end in every way, and claims expire."""
    sku = await trade.create_product(10 * ORDERS)
    account, empty_account = await trade.open_account(PRICE * ORDERS), await trade.open_account(1)
    await plant_order(stack, sku, account)

    async def end_order(number: int) -> None:
        order_id = await trade.place_order(sku, (account, empty_account)[number % 6 == 0])
        if await trade.wait_for_state(order_id, "CONFIRMED", "REJECTED") == "REJECTED":
            return
        if number % 6 == 1:
            request = ordering.CancelOrderRequest(order_id=order_id, reason="changed my mind")
            await trade.caller.execute(request)
            await trade.wait_for_state(order_id, "CANCELLED")
        if number % 6 in (2, 3):
            await trade.ship(order_id)
            await trade.wait_for_state(order_id, "FULFILLED")
        if number % 6 == 3:
            await trade.return_order(order_id)
            await trade.wait_for_state(order_id, "RETURNED")

    claims = [trade.claim_without_order(sku, account, timedelta(seconds=2)) for _ in range(2)]
    await asyncio.gather(*map(end_order, range(ORDERS)), *claims)


async def plant_order(stack: Stack, sku: str, account_id: str) -> None:
    event = OrderPlaced(order_id=uuid4().hex, customer_id="c-1", account_id=account_id, warehouse_id="w-1")
    line = event.lines.add(sku=sku, quantity=1)
    for money in (line.unit_price, event.total):
        money.currency_code, money.units = "EUR", 1
    event.placed_at.GetCurrentTime()
    event.personal.shipping_address.recipient = "Ada"
    connection = await asyncpg.connect(stack.settings.database_url)
    await connection.execute(PLANT_ORDER, f"ordering.order.{event.order_id}", event.SerializeToString())
    await connection.close()


async def test_unchanged_code_makes_no_difference_in_several_processes(stack: Stack) -> None:
    code, out, err = await diptych(stack, "rehearse", "--json", "--processes", "2")
    report = json.loads(out)
    assert (code, report["differences"], report["notes"]) == (0, [], []), err


async def test_unchanged_code_makes_no_difference_under_load(stack: Stack) -> None:
    caller, stop = Caller(stack, *SCOPES), asyncio.Event()
    trade = Trade(caller)
    sku, account_id = await trade.create_product(10_000), await trade.open_account(100 * PRICE)

    async def place_orders() -> int:
        orders = 0
        while not stop.is_set():
            await trade.place_order(sku, account_id)
            orders += 1
        return orders

    customers = asyncio.gather(*(place_orders() for _ in range(3)))
    for _ in range(3):
        report = await rehearse(stack.settings, Options())
        assert not report.differences, report.to_text()
    stop.set()
    assert sum(await customers) > 0
    await caller.close()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_every_planted_change_is_found(stack: Stack, change: Change, tmp_path: Path) -> None:
    plant(tmp_path, change)
    code, report = await rehearse_copy(stack, tmp_path)
    assert code == 1
    assert change.finds in list_differences(report), report


async def test_accepted_differences_are_none(stack: Stack, tmp_path: Path) -> None:
    change = CHANGES["a status for people"]
    plant(tmp_path, change)
    # The saga records what callers see; with other records, other orders of the inputs come furthest.
    fields = (change.finds[1], "fulfilment.fulfilment.record", "fulfilment.fulfilment.record.waiting_for")
    accepted = [part for field in fields for part in ("--accept", field)]
    code, report = await rehearse_copy(stack, tmp_path, *accepted)
    assert code == 0, report["differences"]
