"""Answers, events, timers and people's decisions about one order, in orders that led to wrong ends."""

from datetime import timedelta

import pytest

from command_server.contexts.ordering.domain import messages as orders
from command_server.kernel.money import Money
from process_manager.saga import ActionNotPossible, StepRejected
from process_manager.sagas.fulfilment import CONFIRMATION_TIMEOUT, FULFILMENT, REVIEW_TIMEOUT
from tests.support.builders.orders import OWN_PRICES
from tests.support.models.fulfilment_simulation import ORDER, Simulation

SHIP, APPROVE = orders.ShipOrder("o-1", "Swift", "123"), orders.ApproveOrder("o-1")
CONFIRM, CANCEL = orders.ConfirmOrder("o-1"), orders.CancelOrder("o-1", "changed my mind")
POT = orders.OrderLine("pot", "A pot", 1, Money("EUR", 5))


@pytest.fixture
def confirming() -> Simulation:
    """A simulation whose order the server has confirmed, and whose saga waits for the answer."""
    simulation = Simulation()
    simulation.place_order()
    simulation.deliver_event()
    simulation.proceed_to("confirm-1")
    simulation.lose_reply()
    assert simulation.order_status == "CONFIRMED"
    return simulation


@pytest.fixture
def holding() -> Simulation:
    """A simulation whose order the server has held, and whose saga waits for the answer."""
    simulation = Simulation(money=10_000, price=200)
    simulation.place_order()
    simulation.deliver_event()
    simulation.proceed_to("hold_order-1")
    simulation.lose_reply()
    assert simulation.order_status == "HELD"
    return simulation


@pytest.mark.parametrize("first", ["answer", "event"])
def test_a_timer_that_fires_during_the_confirmation_changes_nothing(
    first: str, confirming: Simulation
) -> None:
    confirming.advance_time(CONFIRMATION_TIMEOUT)
    _ = confirming.answer_step() if first == "answer" else confirming.deliver_event()
    confirming.settle()
    assert (confirming.saga_status, confirming.instance.status.blocked_reason) == ("CONFIRMED", "")
    confirming.execute(SHIP)
    confirming.settle()
    assert (confirming.saga_status, confirming.stock(), confirming.money()) == ("FULFILLED", (8, 0), (60, 0))


def test_an_abort_during_the_confirmation_is_refused_until_its_event_arrives(confirming: Simulation) -> None:
    with pytest.raises(ActionNotPossible, match="being confirmed"):
        confirming.abort(FULFILMENT.name, "o-1", "enough")
    confirming.answer_step()
    with pytest.raises(ActionNotPossible, match="version 2 of the order has not arrived"):
        confirming.abort(FULFILMENT.name, "o-1", "enough")
    confirming.deliver_event()
    with pytest.raises(ActionNotPossible, match="cancel it"):
        confirming.abort(FULFILMENT.name, "o-1", "enough")
    assert confirming.instance.status.blocked_reason == ""


def test_an_abort_before_the_confirmation_ends_once_a_person_confirms_what_is_firm() -> None:
    simulation = Simulation()
    simulation.place_order()
    simulation.deliver_event()
    simulation.proceed_to("firm_stock-1")
    simulation.abort(FULFILMENT.name, "o-1", "enough")
    simulation.execute(CONFIRM)
    simulation.settle()
    assert (simulation.saga_status, simulation.instance.status.blocked_reason) == ("CONFIRMED", "")
    assert (simulation.stock(), simulation.money()) == ((10, 2), (100, 40))


def test_the_late_answer_to_a_hold_tells_nothing_new_after_the_approval(holding: Simulation) -> None:
    holding.execute(APPROVE)
    while holding.deliver_event():
        pass
    holding.answer_step()
    holding.settle()
    assert (holding.order_status, holding.saga_status) == ("CONFIRMED", "CONFIRMED")
    assert find_reviews(holding) == 1


def test_an_answer_waits_for_the_events_up_to_its_version(holding: Simulation) -> None:
    holding.execute(APPROVE, orders.AddOrderLine("o-1", "", POT, scopes=OWN_PRICES))
    holding.answer_step()
    assert (holding.instance.status.waiting_for, list(holding.pending)) == ("version 2 of the order", [])
    holding.settle()
    assert find_reviews(holding) == 2  # the edit ended the approval


def find_reviews(simulation: Simulation) -> int:
    return sum(isinstance(event, orders.OrderHeld) for _, event in simulation.world.history)


def test_a_held_order_that_was_approved_while_events_were_away_is_not_rejected_for_its_review(
    holding: Simulation,
) -> None:
    holding.settle()
    holding.execute(APPROVE)
    holding.advance_time(REVIEW_TIMEOUT)  # before the saga has the approval
    holding.settle()
    assert (holding.order_status, holding.saga_status) == ("CONFIRMED", "CONFIRMED")


def test_an_order_that_was_edited_after_its_time_was_up_is_rejected_all_the_same() -> None:
    simulation = Simulation()
    simulation.place_order()
    simulation.deliver_event()
    simulation.advance_time(CONFIRMATION_TIMEOUT)
    simulation.execute(orders.AddOrderLine("o-1", "", POT, scopes=OWN_PRICES))
    simulation.settle()
    assert (simulation.order_status, simulation.saga_status) == ("REJECTED", "REJECTED")


def test_an_operators_reason_outlives_an_approval_but_a_time_does_not() -> None:
    simulation = Simulation()
    simulation.place_order()
    simulation.deliver_event()
    simulation.advance_time(CONFIRMATION_TIMEOUT)
    simulation.abort(FULFILMENT.name, "o-1", "enough")
    simulation.execute(orders.HoldOrder("o-1", "let me see"), APPROVE)
    simulation.settle()
    assert simulation.order_status == "REJECTED"
    assert simulation.last_order_event.reason == "enough"


def test_a_cancelled_order_that_was_confirmed_without_goods_unwinds_without_an_operator() -> None:
    simulation = Simulation(stock=1)
    simulation.place_order()
    simulation.deliver_event()
    simulation.execute(CONFIRM)
    simulation.settle()
    assert simulation.instance.status.blocked_reason == "confirmed, but STOCK_INSUFFICIENT"
    simulation.execute(CANCEL)
    simulation.settle()
    assert (simulation.saga_status, simulation.stock(), simulation.money()) == ("CANCELLED", (1, 0), (100, 0))


def test_an_expired_claim_of_a_confirmed_order_is_replaced_after_a_retry() -> None:
    simulation = Simulation()
    simulation.place_order()
    simulation.deliver_event()
    simulation.proceed_to("reserve-1")
    simulation.answer_step("reserve")
    simulation.execute(CONFIRM)
    simulation.advance_time(timedelta(hours=2))
    simulation.rejections = {"hold_money": "FUNDS_INSUFFICIENT"}
    simulation.settle()
    simulation.rejections = {}
    for _ in range(2):  # the first finds that the reservation has expired
        simulation.retry(FULFILMENT.name, "o-1")
        simulation.settle()
    assert (simulation.saga_status, simulation.instance.status.blocked_reason) == ("CONFIRMED", "")
    assert (simulation.stock(), simulation.money()) == ((10, 2), (100, 40))


def test_a_rejection_that_no_event_explains_blocks_until_an_operator_acts() -> None:
    simulation = Simulation()
    simulation.place_order()
    simulation.deliver_event()
    simulation.proceed_to("confirm-1")
    sent = simulation.pending.popleft()
    at = simulation.world.now
    simulation.deliver(
        sent.instance, StepRejected(sent.name, "VERSION_MISMATCH", {"actual_version": "1"}, at)
    )
    assert simulation.instance.status.blocked_reason == "confirm was rejected: VERSION_MISMATCH"
    simulation.retry(FULFILMENT.name, "o-1")
    simulation.settle()
    assert (simulation.saga_status, simulation.world.version(ORDER)) == ("CONFIRMED", 2)
