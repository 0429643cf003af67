"""A reorder that has raised its purchase order is compared with that order."""

from collections.abc import AsyncIterator, Awaitable, Callable
from time import monotonic

import pytest
from diptych.inventory.v1 import events_pb2 as events
from diptych.inventory.v1.types_pb2 import PurchaseLine, ReorderTerms
from google.type.money_pb2 import Money
from sqlalchemy import text

from operations.verify.checks.inventory import CHECK
from operations.verify.contexts.inventory.purchase_order import PURCHASE_ORDERS
from operations.verify.report import Report
from operations.verify.sources import PostgresReader
from process_manager.postgres.store import SagaStore
from process_manager.sagas.inventory_reorder import REORDERS
from runtime.postgres import create_engine
from tests.support.harness.keys import get_ring
from tests.support.harness.saga_run import SagaRun, recorded_as

PRICE = Money(currency_code="EUR", units=2)
STREAM = "inventory.purchase_order.p-1"
ALERT = events.ReorderAlertRaised(
    sku="tea",
    warehouse_id="w-1",
    purchase_order_id="p-1",
    terms=ReorderTerms(supplier_id="tea-house", quantity=10, unit_price=PRICE),
)
INSERT_EVENT = text("""
INSERT INTO events (stream, version, type, data, metadata, recorded_at)
VALUES (:stream, 1, 'diptych.inventory.v1.PurchaseOrderRaised', :data, '{}', now())
""")
INSERT_STREAM = text("""
INSERT INTO streams (id, type, version, updated_at, state, state_version, fingerprint)
VALUES (:stream, 'inventory.purchase_order', 1, now(), '{}', 1, '')
""")

FindProblems = Callable[[], Awaitable[list[str]]]


@pytest.fixture
async def find_problems(database_url: str) -> AsyncIterator[FindProblems]:
    """A database in which the saga has received the alert, and a request of it was accepted."""
    store, postgres = SagaStore(database_url), PostgresReader(database_url, get_ring)
    run = SagaRun(store, REORDERS)
    await run.deliver(recorded_as("inventory.stock.tea@w-1", ALERT, 1))
    await run.query("UPDATE saga_steps SET outcome = 'OK'")
    await run.query("UPDATE sagas SET status = 'RAISED'")

    async def find() -> list[str]:
        report = Report(max_findings=20)
        await CHECK.run(postgres, {PURCHASE_ORDERS.stream_type: PURCHASE_ORDERS}, report, monotonic())
        assert not report.notes
        return [problem.text for problem in report.problems]

    yield find
    await store.close()
    await postgres.close()


async def record_order(database_url: str, quantity: int, supplier: str = "tea-house") -> None:
    raised = events.PurchaseOrderRaised(
        purchase_order_id="p-1",
        supplier_id=supplier,
        warehouse_id="w-1",
        lines=[PurchaseLine(sku="tea", quantity=quantity, unit_price=PRICE)],
        total=Money(currency_code="EUR", units=2 * quantity),
    )
    engine = create_engine(database_url)
    async with engine.begin() as connection:
        values = {"stream": STREAM, "data": raised.SerializeToString()}
        await connection.execute(INSERT_EVENT, values)
        await connection.execute(INSERT_STREAM, {"stream": STREAM})
    await engine.dispose()


async def test_the_order_of_the_terms_is_clean(find_problems: FindProblems, database_url: str) -> None:
    await record_order(database_url, 10)
    assert await find_problems() == []


async def test_an_order_that_was_never_raised_is_found(find_problems: FindProblems) -> None:
    assert await find_problems() == ["is RAISED, but there is no such purchase order"]


async def test_an_order_of_something_else_is_found(find_problems: FindProblems, database_url: str) -> None:
    await record_order(database_url, 11, "mug-house")
    assert await find_problems() == [
        "its purchase order is of another supplier or warehouse",
        "its purchase order orders something else",
    ]
