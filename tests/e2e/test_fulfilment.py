"""Orders fulfilled through the whole stack, by two process managers that share the work."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from diptych.banking.v1 import command_service_pb2 as banking
from diptych.inventory.v1 import command_service_pb2 as inventory
from diptych.inventory.v1 import query_service_pb2 as inventory_queries
from diptych.ordering.v1 import command_service_pb2 as ordering
from diptych.ordering.v1 import query_service_pb2 as queries
from diptych.ordering.v1.types_pb2 import Order
from google.type.money_pb2 import Money

from operations.stack import Stack
from operations.stacks import throwaway
from tests.e2e.caller import Caller
from tests.e2e.shop import order_of
from tests.integration.waiting import until

SCOPES = ("ordering.write", "ordering.read", "ordering.review", "inventory.write", "inventory.read")


@pytest.fixture(scope="module")
async def company(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("company")
    async with throwaway(folder, process_managers=2) as stack:
        yield stack


@pytest.fixture
async def caller(company: Stack) -> AsyncIterator[Caller]:
    caller = Caller(company, *SCOPES, "banking.write")
    yield caller
    await caller.close()


async def sagas(company: Stack) -> dict[str, Any]:
    connection = await asyncpg.connect(company.settings.database_url)
    rows = await connection.fetch("SELECT * FROM sagas WHERE saga = 'fulfilment.fulfilment'")
    await connection.close()
    return {row["id"]: row for row in rows}


async def test_orders_end_confirmed_or_rejected_with_the_reason(company: Stack, caller: Caller) -> None:
    sku, poor, rich = f"sku-{uuid4().hex[:6]}", uuid4().hex, uuid4().hex
    await caller.do(inventory.RegisterProductRequest(sku=sku, title="A thing", reorder_point=0))
    await caller.do(
        inventory.ReceiveStockRequest(
            sku=sku, warehouse_id="w-1", quantity=9, purchase_order="po", delivery_note="n"
        )
    )
    for account, units in ((poor, 1), (rich, 1_000)):
        await caller.do(banking.OpenAccountRequest(account_id=account, owner_id="ada", currency_code="EUR"))
        amount = Money(currency_code="EUR", units=units)
        await caller.do(banking.DepositRequest(account_id=account, amount=amount, reference="pay"))

    async def place(account: str, **more: Any) -> str:
        request = order_of(f"c-{uuid4().hex[:6]}", **more)
        request.account_id = account
        request.lines[0].sku = sku
        placed = await caller.do(request)
        read = queries.GetOrderRequest(
            order_id=placed.aggregate_id, at_least_as_fresh=placed.consistency_token
        )
        await caller.ask(read)  # from here on nobody says that there is no such order
        return placed.aggregate_id

    async def state(order_id: str) -> Any:
        return (await caller.ask(queries.GetOrderRequest(order_id=order_id))).order

    async def ended(order_id: str) -> str:
        """Return the state of an order's fulfilment once nothing is under way, and the order is read so."""
        found = ""

        async def at_rest() -> bool:
            nonlocal found
            saga = (await sagas(company)).get(order_id)
            found = saga["standing"] if saga else ""
            read = Order.State.Name((await state(order_id)).state)
            return found in ("CONFIRMED", "REJECTED") and read == f"STATE_{found}"

        await until(at_rest)
        return found

    bad = await place(poor)  # first, since what it has reserved for a moment others lack
    assert await ended(bad) == "REJECTED"
    assert (await state(bad)).reject_reason == "FUNDS_INSUFFICIENT"
    orders = await asyncio.gather(*(place(rich) for _ in range(4)))
    assert sorted([await ended(id_) for id_ in orders]) == ["CONFIRMED"] * 3 + ["REJECTED"]
    (lacking,) = [id_ for id_ in orders if await ended(id_) == "REJECTED"]
    assert (await state(lacking)).reject_reason == "STOCK_INSUFFICIENT"
    stock = await caller.ask(inventory_queries.GetStockRequest(sku=sku))
    assert (stock.on_hand, stock.reserved) == (9, 9)

    confirmed = next(id_ for id_ in orders if id_ != lacking)
    await caller.do(ordering.ShipOrderRequest(order_id=confirmed, carrier="Swift", tracking_code="1"))

    async def is_fulfilled() -> bool:
        stock = await caller.ask(inventory_queries.GetStockRequest(sku=sku))
        standing = (await sagas(company))[confirmed]["standing"]
        return (standing, stock.on_hand, stock.reserved) == ("FULFILLED", 6, 6)

    await until(is_fulfilled)
