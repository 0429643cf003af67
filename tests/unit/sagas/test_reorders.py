"""Purchase orders that follow from reorder alerts, on the real rules, in memory."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from command_server.contexts import inventory
from command_server.contexts.inventory.domain.messages import (
    DiscontinueProduct,
    RegisterProduct,
    ReorderTerms,
)
from command_server.contexts.inventory.domain.purchase_messages import (
    ApprovePurchaseOrder,
    PurchaseLine,
    RaisePurchaseOrder,
    SetReorderTerms,
)
from command_server.contexts.inventory.domain.stock import make_stock_id
from command_server.kernel.money import Money
from diptych_testing import folds
from diptych_testing.saga_simulation import SagaSimulation
from process_manager.saga import ActionNotPossible
from process_manager.sagas.inventory import SAGAS
from process_manager.sagas.inventory_reorder import REORDERS
from tests.support.builders.purchasing import get_order
from tests.support.builders.warehouse import SKU, WAREHOUSE, receive, reserve

TERMS = ReorderTerms("tea-house", 50, Money("EUR", 2, 500_000_000))
ORDER_IDS = [f"reorder-{make_stock_id(SKU, WAREHOUSE)}-{number}" for number in (1, 2)]


@pytest.fixture
def simulation() -> SagaSimulation:
    """A stock of ten pieces, of which an alert orders fifty more."""
    simulation = SagaSimulation(SAGAS, [inventory.CONTEXT])
    simulation.execute(
        RegisterProduct(SKU, "Green tea", 0), receive(10), SetReorderTerms(SKU, WAREHOUSE, TERMS)
    )
    return simulation


def status(simulation: SagaSimulation, order_id: str = ORDER_IDS[0]) -> str:
    return simulation.find_instance(REORDERS.name, order_id).status.state


def count_raised(simulation: SagaSimulation) -> int:
    return sum(type(event).__name__ == "PurchaseOrderRaised" for _, event in simulation.world.history)


def test_each_alert_raises_one_order(simulation: SagaSimulation) -> None:
    for number, order_id in enumerate(ORDER_IDS, 1):
        simulation.execute(reserve(f"r-{number}", 10))
        simulation.settle()
        order = get_order(simulation.world, order_id)
        (line,) = order.lines
        assert (order.supplier_id, order.warehouse_id, order.status.name) == (
            "tea-house",
            WAREHOUSE,
            "APPROVED",
        )
        assert (line.sku, line.quantity, line.unit_price) == (SKU, 50, TERMS.unit_price)
        assert (status(simulation, order_id), count_raised(simulation)) == ("RAISED", number)
        simulation.execute(receive(10, f"n-{number + 1}"))


def test_who_set_the_terms_may_not_approve_what_they_order() -> None:
    simulation = SagaSimulation(SAGAS, [inventory.CONTEXT])
    dear = replace(TERMS, unit_price=Money("EUR", 1_000))
    simulation.execute(RegisterProduct(SKU, "Green tea", 0), receive(10))
    simulation.execute(SetReorderTerms(SKU, WAREHOUSE, dear, persons=frozenset({"till", "eve"})))
    simulation.execute(SetReorderTerms(SKU, WAREHOUSE, dear, persons=frozenset({"bob"})))  # changes nothing
    simulation.execute(reserve("r-1", 10))
    simulation.settle()
    folds.compare(simulation.world)
    for own in ("till", "eve"):
        approve = ApprovePurchaseOrder(ORDER_IDS[0], "another till", frozenset({"another till", own}))
        simulation.world.assert_rejected(approve, "PURCHASE_ORDER_SAME_CALLER")
    simulation.execute(ApprovePurchaseOrder(ORDER_IDS[0], "bob", frozenset({"bob"})))
    assert get_order(simulation.world, ORDER_IDS[0]).status.name == "APPROVED"


def test_an_order_whose_reply_is_lost_is_raised_once(simulation: SagaSimulation) -> None:
    simulation.execute(reserve("r-1", 10))
    simulation.deliver_event(REORDERS.name)
    while not simulation.pending:
        assert simulation.deliver_event()
    simulation.lose_reply()
    simulation.settle()
    assert (status(simulation), count_raised(simulation)) == ("RAISED", 1)


def test_an_alert_without_terms_orders_nothing(simulation: SagaSimulation) -> None:
    simulation.execute(SetReorderTerms(SKU, WAREHOUSE, None), reserve("r-1", 10))
    simulation.settle()
    assert count_raised(simulation) == 0


def reject(simulation: SagaSimulation) -> None:
    simulation.rejections["raise"] = "NOT_NOW"
    simulation.execute(reserve("r-1", 10))
    simulation.settle()
    simulation.rejections.clear()
    blocked = simulation.find_instance(REORDERS.name, ORDER_IDS[0]).status
    assert (blocked.state, blocked.blocked_reason) == ("RAISING", "raise was rejected: NOT_NOW")


def test_a_rejected_order_is_raised_when_an_operator_retries(simulation: SagaSimulation) -> None:
    reject(simulation)
    simulation.retry(REORDERS.name, ORDER_IDS[0])
    simulation.settle()
    assert (status(simulation), count_raised(simulation)) == ("RAISED", 1)


def test_a_rejected_order_can_be_given_up(simulation: SagaSimulation) -> None:
    reject(simulation)
    simulation.abort(REORDERS.name, ORDER_IDS[0], "enough tea")
    assert (status(simulation), count_raised(simulation)) == ("ABORTED", 0)


@pytest.mark.parametrize("proceed", [lambda s: None, SagaSimulation.settle], ids=["unanswered", "raised"])
def test_an_order_that_may_be_raised_is_not_given_up(
    simulation: SagaSimulation, proceed: Callable[[SagaSimulation], None]
) -> None:
    simulation.execute(reserve("r-1", 10))
    while not simulation.pending:
        assert simulation.deliver_event()
    proceed(simulation)
    with pytest.raises(ActionNotPossible, match="cancel the purchase order"):
        simulation.abort(REORDERS.name, ORDER_IDS[0], "enough tea")


def test_a_product_that_is_discontinued_meanwhile_blocks_its_order(simulation: SagaSimulation) -> None:
    simulation.execute(reserve("r-1", 10), DiscontinueProduct(SKU))
    simulation.settle()
    blocked = simulation.find_instance(REORDERS.name, ORDER_IDS[0]).status.blocked_reason
    assert blocked == "raise was rejected: PRODUCT_DISCONTINUED"


def test_an_order_that_a_person_has_raised_already_stays_as_it_is(simulation: SagaSimulation) -> None:
    simulation.execute(reserve("r-1", 10))
    line = PurchaseLine(SKU, TERMS.quantity, TERMS.unit_price)
    simulation.execute(RaisePurchaseOrder(ORDER_IDS[0], "tea-house", WAREHOUSE, (line,), caller="ada"))
    simulation.settle()
    assert (status(simulation), count_raised(simulation)) == ("RAISED", 1)
