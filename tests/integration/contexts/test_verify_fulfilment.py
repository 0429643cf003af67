"""Real processes bring fulfilments to every end, then their effects are changed in copies of the database."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import asyncpg
import pytest
from diptych.banking.v1 import command_service_pb2 as banking
from diptych.inventory.v1 import command_service_pb2 as inventory
from diptych.ordering.v1 import command_service_pb2 as ordering

from contracts.key_ring import KeyRing
from devstack.servers import Nats, Postgres, Valkey
from devstack.stack_kinds import temporary_stack
from operations.verify.checks import sagas
from operations.verify.report import Report
from operations.verify.sources import PostgresReader
from runtime.process.key_file import read_ring
from tests.support.harness.caller import Caller
from tests.support.harness.contexts import AGGREGATES, SAGA_SPECS
from tests.support.harness.servers import TEMPLATE
from tests.support.harness.trade import PRICE, SCOPES, Trade
from tests.support.harness.verified_system import clear_servers

ORIGIN = "verify_fulfilment"
_numbers = count(1)


@pytest.fixture(scope="module")
async def origin(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, nats_server: Nats, redis_server: Valkey
) -> tuple[dict[str, str], KeyRing]:
    """Fill a database; return one order for each end of a fulfilment, by its state, and the keys."""
    await clear_servers(nats_server, redis_server)
    await postgres.execute(f"CREATE DATABASE {ORIGIN} TEMPLATE {TEMPLATE}")
    await postgres.execute("UPDATE relay_state SET incarnation = gen_random_uuid()", ORIGIN)
    folder = tmp_path_factory.mktemp("sagas")
    stack = temporary_stack(
        folder,
        database_url=postgres.url_of(ORIGIN),
        nats_url=nats_server.url,
        redis_url=redis_server.url,
        process_managers=1,
    )
    async with stack:
        caller = Caller(stack, *SCOPES)
        orders = await _run_orders(Trade(caller))
        await caller.close()
    return orders, read_ring(stack.settings.keys)


async def _run_orders(trade: Trade) -> dict[str, str]:
    sku, rich, poor = (
        await trade.create_product(9),
        await trade.open_account(9 * PRICE),
        await trade.open_account(1),
    )
    orders = {"REJECTED": await trade.place_order(sku, poor)}
    await trade.wait_for_state(orders["REJECTED"], "REJECTED")
    for state in ("CONFIRMED", "RETURNED", "CANCELLED"):
        orders[state] = await trade.place_order(sku, rich)
        await trade.wait_for_state(orders[state], "CONFIRMED")
    await trade.ship(orders["RETURNED"])
    await trade.wait_for_state(orders["RETURNED"], "FULFILLED")
    await trade.return_order(orders["RETURNED"])
    await trade.caller.execute(ordering.CancelOrderRequest(order_id=orders["CANCELLED"], reason="no"))
    await asyncio.gather(*(trade.wait_for_state(order, state) for state, order in orders.items()))
    return orders


class Copy:
    """A copy of the database to plant faults in."""

    def __init__(self, url: str, orders: dict[str, str], ring: KeyRing) -> None:
        self.url, self.orders, self.ring = url, orders, ring

    async def sql(self, statement: str, *arguments: object) -> list[Any]:
        connection = await asyncpg.connect(self.url)
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    async def find_problems(self) -> list[str]:
        postgres, report = PostgresReader(self.url, lambda: self.ring), Report(max_findings=20)
        aggregates = {aggregate.stream_type: aggregate for aggregate in AGGREGATES}
        try:
            await sagas.check(postgres, SAGA_SPECS, aggregates, report, within=0.0)
        finally:
            await postgres.close()
        assert report.findings.total() == len(report.problems)
        return sorted(f"{problem.subject}: {problem.text}" for problem in report.problems)

    async def change_request(self, state: str, step: str, kind: Any, **fields: Any) -> None:
        """Set fields of the request of a step, for the order that ended in a state."""
        where = (self.orders[state], step)
        ((data,),) = await self.sql("SELECT request FROM saga_steps WHERE id = $1 AND step = $2", *where)
        request = kind.FromString(data)
        for name, value in fields.items():
            setattr(request, name, value)
        changed = request.SerializeToString()
        await self.sql("UPDATE saga_steps SET request = $3 WHERE id = $1 AND step = $2", *where, changed)


@pytest.fixture
async def copy(origin: tuple[dict[str, str], KeyRing], postgres: Postgres) -> AsyncIterator[Copy]:
    name = f"{ORIGIN}_{next(_numbers)}"
    await postgres.execute(f"CREATE DATABASE {name} TEMPLATE {ORIGIN}")
    yield Copy(postgres.url_of(name), *origin)
    await postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_orders_that_ended_in_every_way_are_clean(copy: Copy) -> None:
    assert await copy.find_problems() == []


async def test_an_order_in_another_state_than_its_fulfilment(copy: Copy) -> None:
    order = copy.orders["REJECTED"]
    await copy.sql("UPDATE sagas SET status = 'CANCELLED' WHERE id = $1", order)
    assert await copy.find_problems() == [
        f"saga fulfilment.fulfilment {order}: is CANCELLED, but its order is REJECTED",
        f"saga fulfilment.fulfilment {order}: is CANCELLED, but was last recorded as REJECTED",
    ]


async def test_stock_that_is_reserved_twice(copy: Copy) -> None:
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
    assert await copy.find_problems() == [
        f"saga fulfilment.fulfilment {order}: is CONFIRMED, but has 2 active Reservations"
    ]


async def test_a_reservation_of_a_cancelled_order(copy: Copy) -> None:
    order = copy.orders["CANCELLED"]
    ((data,),) = await copy.sql(
        "SELECT request FROM saga_steps WHERE id = $1 AND step = 'reserve-1'", copy.orders["CONFIRMED"]
    )
    other_id = inventory.ReserveStockRequest.FromString(data).reservation_id
    await copy.change_request(
        "CANCELLED", "reserve-1", inventory.ReserveStockRequest, reservation_id=other_id
    )
    assert await copy.find_problems() == [
        f"saga fulfilment.fulfilment {order}: is CANCELLED, but has 1 active Reservations"
    ]


async def test_a_missing_hold(copy: Copy) -> None:
    order = copy.orders["CONFIRMED"]
    await copy.change_request("CONFIRMED", "hold_money-1", banking.PlaceHoldRequest, hold_id="nobody's")
    assert await copy.find_problems() == [
        f"saga fulfilment.fulfilment {order}: is CONFIRMED, but has 0 active Holds"
    ]


async def test_a_missing_refund(copy: Copy) -> None:
    order = copy.orders["RETURNED"]
    await copy.sql(
        "UPDATE saga_steps SET outcome = 'ACCOUNT_CLOSED' WHERE step = 'refund' AND id = $1", order
    )
    assert (
        f"saga fulfilment.fulfilment {order}: is RETURNED, but made 0 refunds" in await copy.find_problems()
    )


async def test_a_step_whose_request_cannot_be_read(copy: Copy) -> None:
    order = copy.orders["CONFIRMED"]
    where = "id = $1 AND method LIKE '%ReserveStock'"
    await copy.sql(f"UPDATE saga_steps SET request = 'x'::bytea WHERE {where}", order)
    assert await copy.find_problems() == [
        f"saga fulfilment.fulfilment {order}: the requests of 1 steps cannot be read"
    ]
