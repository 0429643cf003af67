"""What verify says of sagas: real processes brought fulfilments to every end, then faults are planted."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import asyncpg
import pytest
from diptych.banking.v1 import command_service_pb2 as banking
from diptych.inventory.v1 import command_service_pb2 as inventory
from diptych.ordering.v1 import command_service_pb2 as ordering

from devstack.servers import Nats, Postgres, Valkey
from devstack.stacks import throwaway
from operations.verify.checks import sagas
from operations.verify.report import Report
from operations.verify.sources.event_store import Store
from tests.support.harness.caller import Caller
from tests.support.harness.servers import TEMPLATE
from tests.support.harness.trade import PRICE, SCOPES, Trade
from tests.support.harness.verified_system import emptied

ORIGIN = "verify_sagas"
_numbers = count(1)


@pytest.fixture(scope="module")
async def origin(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, nats_server: Nats, redis_server: Valkey
) -> dict[str, str]:
    """Fill a database, and return one order for each end of a fulfilment, by its state."""
    await emptied(nats_server, redis_server)
    await postgres.execute(f"CREATE DATABASE {ORIGIN} TEMPLATE {TEMPLATE}")
    await postgres.execute("UPDATE relay_state SET incarnation = gen_random_uuid()", ORIGIN)
    folder = tmp_path_factory.mktemp("sagas")
    stack = throwaway(
        folder,
        database_url=postgres.url_of(ORIGIN),
        nats_url=nats_server.url,
        redis_url=redis_server.url,
        process_managers=1,
    )
    async with stack:
        caller = Caller(stack, *SCOPES)
        orders = await _trade(Trade(caller))
        await caller.close()
    return orders


async def _trade(trade: Trade) -> dict[str, str]:
    sku, rich, poor = await trade.product(9), await trade.account(9 * PRICE), await trade.account(1)
    orders = {"REJECTED": await trade.place(sku, poor)}
    await trade.ends(orders["REJECTED"], "REJECTED")
    for state in ("CONFIRMED", "RETURNED", "CANCELLED"):
        orders[state] = await trade.place(sku, rich)
        await trade.ends(orders[state], "CONFIRMED")
    await trade.ship(orders["RETURNED"])
    await trade.ends(orders["RETURNED"], "FULFILLED")
    await trade.give_back(orders["RETURNED"])
    await trade.caller.do(ordering.CancelOrderRequest(order_id=orders["CANCELLED"], reason="no"))
    await asyncio.gather(*(trade.ends(order, state) for state, order in orders.items()))
    return orders


class Copy:
    """A copy of the database, with what faults are planted by."""

    def __init__(self, url: str, orders: dict[str, str]) -> None:
        self.url, self.orders = url, orders

    async def sql(self, statement: str, *arguments: object) -> list[Any]:
        connection = await asyncpg.connect(self.url)
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    async def found(self) -> list[str]:
        """Return what is found."""
        store, report = Store(self.url), Report(shown=20)
        try:
            await sagas.check(store, report, within=0.0)
        finally:
            await store.close()
        assert report.found.total() == len(report.problems)
        return sorted(f"{problem.subject}: {problem.text}" for problem in report.problems)

    async def change_request(self, state: str, step: str, kind: Any, **fields: Any) -> None:
        """Set fields of the request that a step of the order which ended so has sent."""
        where = (self.orders[state], step)
        ((data,),) = await self.sql("SELECT request FROM saga_steps WHERE id = $1 AND step = $2", *where)
        request = kind.FromString(data)
        for name, value in fields.items():
            setattr(request, name, value)
        changed = request.SerializeToString()
        await self.sql("UPDATE saga_steps SET request = $3 WHERE id = $1 AND step = $2", *where, changed)


@pytest.fixture
async def copy(origin: dict[str, str], postgres: Postgres) -> AsyncIterator[Copy]:
    name = f"{ORIGIN}_{next(_numbers)}"
    await postgres.execute(f"CREATE DATABASE {name} TEMPLATE {ORIGIN}")
    yield Copy(postgres.url_of(name), origin)
    await postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_nothing_is_wrong_with_orders_that_ended_in_every_way(copy: Copy) -> None:
    assert await copy.found() == []


async def test_a_stream_that_no_saga_has_heard(copy: Copy) -> None:
    order = copy.orders["CONFIRMED"]
    await copy.sql("DELETE FROM sagas WHERE id = $1", order)
    assert await copy.found() == [f"saga fulfilment.fulfilment {order}: it has heard version 0 of 2"]


async def test_an_event_that_a_saga_has_not_heard(copy: Copy) -> None:
    await copy.sql("UPDATE sagas SET version = version - 1 WHERE saga = 'banking.hold_deadline'")
    assert {text.partition(": ")[2] for text in await copy.found()} == {
        "it has heard version 1 of 2",
        "it has heard version 2 of 3",
    }


async def test_a_saga_that_is_stuck(copy: Copy) -> None:
    order = copy.orders["CANCELLED"]
    await copy.sql("UPDATE sagas SET version = 1, failed_input = 'KeyError(1)' WHERE id = $1", order)
    assert await copy.found() == [f"saga fulfilment.fulfilment {order}: KeyError(1)"]


async def test_a_saga_of_no_stream(copy: Copy) -> None:
    await copy.sql("UPDATE sagas SET id = 'nobody' WHERE id = $1", copy.orders["REJECTED"])
    assert await copy.found() == [
        f"saga fulfilment.fulfilment {copy.orders['REJECTED']}: it has heard version 0 of 2",
        "saga fulfilment.fulfilment nobody: there is no ordering.order.nobody",
    ]


async def test_a_step_that_was_told_otherwise_than_is_on_record(copy: Copy) -> None:
    order = copy.orders["CONFIRMED"]
    of = "WHERE id = $1 AND step = 'hold_money-1'"
    await copy.sql(f"UPDATE saga_steps SET outcome = 'FUNDS_INSUFFICIENT' {of}", order)
    assert await copy.found() == [
        f"saga fulfilment.fulfilment {order}: hold_money-1 (attempt 1) was told FUNDS_INSUFFICIENT, "
        "on record is ACCEPTED",
        f"saga fulfilment.fulfilment {order}: it is CONFIRMED, and 0 Holds stand",
    ]


async def test_a_step_that_was_told_ok_and_is_on_no_record(copy: Copy) -> None:
    order = copy.orders["CONFIRMED"]
    of = "SELECT request_id FROM saga_steps WHERE id = $1 AND step = 'firm_stock-1'"
    await copy.sql(f"DELETE FROM requests WHERE request_id = ({of})", order)
    assert await copy.found() == [
        f"saga fulfilment.fulfilment {order}: firm_stock-1 (attempt 1) was told OK, on record is None"
    ]


async def test_an_order_that_is_not_where_its_fulfilment_says(copy: Copy) -> None:
    order = copy.orders["REJECTED"]
    await copy.sql("UPDATE sagas SET status = 'CANCELLED' WHERE id = $1", order)
    assert await copy.found() == [
        f"saga fulfilment.fulfilment {order}: it is CANCELLED, its order is REJECTED"
    ]


async def test_stock_that_an_order_has_reserved_twice(copy: Copy) -> None:
    order, other = copy.orders["CONFIRMED"], copy.orders["RETURNED"]
    ((columns,),) = await copy.sql(
        "SELECT string_agg(column_name, ', ') FROM information_schema.columns "
        "WHERE table_name = 'saga_steps' AND column_name NOT IN ('id', 'step')"
    )
    await copy.sql(
        f"INSERT INTO saga_steps (id, step, {columns}) "
        f"SELECT $1, 'reserve-2', {columns} FROM saga_steps WHERE id = $2 AND step = 'reserve-1'",
        order,
        other,
    )
    assert await copy.found() == [
        f"saga fulfilment.fulfilment {order}: it is CONFIRMED, and 2 Reservations stand"
    ]


async def test_a_reservation_that_a_cancelled_order_has_left_behind(copy: Copy) -> None:
    order = copy.orders["CANCELLED"]
    ((data,),) = await copy.sql(
        "SELECT request FROM saga_steps WHERE id = $1 AND step = 'reserve-1'", copy.orders["CONFIRMED"]
    )
    theirs = inventory.ReserveStockRequest.FromString(data).reservation_id
    await copy.change_request("CANCELLED", "reserve-1", inventory.ReserveStockRequest, reservation_id=theirs)
    assert await copy.found() == [
        f"saga fulfilment.fulfilment {order}: it is CANCELLED, and 1 Reservations stand"
    ]


async def test_a_hold_that_is_gone(copy: Copy) -> None:
    order = copy.orders["CONFIRMED"]
    await copy.change_request("CONFIRMED", "hold_money-1", banking.PlaceHoldRequest, hold_id="nobody's")
    assert await copy.found() == [f"saga fulfilment.fulfilment {order}: it is CONFIRMED, and 0 Holds stand"]


async def test_a_refund_that_is_not_what_was_paid(copy: Copy) -> None:
    order = copy.orders["RETURNED"]
    await copy.sql(
        "UPDATE saga_steps SET outcome = 'ACCOUNT_CLOSED' WHERE step = 'refund' AND id = $1", order
    )
    assert (
        f"saga fulfilment.fulfilment {order}: it is RETURNED, and 0 refunds were made" in await copy.found()
    )


async def test_a_database_without_a_process_manager_is_not_at_fault(copy: Copy) -> None:
    await copy.sql("TRUNCATE sagas, saga_steps, saga_timers, saga_checkpoints")
    assert await copy.found() == []
