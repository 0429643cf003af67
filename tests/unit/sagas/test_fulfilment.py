"""The fulfilment saga on the real rules of ordering, inventory and banking."""

from datetime import timedelta

import pytest
from diptych.ordering.v1.command_service_pb2 import AssessOrderRequest
from diptych.ordering.v1.events_pb2 import OrderAssessed, PersonalData
from diptych.ordering.v1.query_service_pb2 import GetCustomerActivityResponse, ListOrdersResponse
from diptych.ordering.v1.types_pb2 import Order
from google.protobuf.message import Message
from msgspec.structs import replace

from command_server.contexts.banking.domain.messages import FreezeAccount, UnfreezeAccount
from command_server.contexts.ordering.domain import messages as orders
from command_server.contexts.ordering.domain.customer_activity import AssessOrder
from command_server.kernel.money import Money
from diptych_testing.scenario import NOW
from process_manager.saga import ActionNotPossible, EventReceived, RetryRequested, Send, StepSucceeded
from process_manager.sagas.fulfilment import CONFIRMATION_TIMEOUT, FULFILMENT, REVIEW_TIMEOUT, react
from process_manager.sagas.fulfilment.facts import Fulfilment, apply_event, apply_input
from tests.support.builders.orders import OWN_PRICES
from tests.support.models.fulfilment_simulation import ACTIVITY, ORDER, Simulation

CANCEL = orders.CancelOrder("o-1", "changed my mind")
SHIP = orders.ShipOrder("o-1", "Swift", "123")
DELIVER, RETURN = orders.DeliverOrder("o-1"), orders.ReturnOrder("o-1", "does not fit")
REMOVE_MUGS = orders.RemoveOrderLine("o-1", "", "mug")
UNCLAIMED = ((10, 0), (100, 0))
CLAIMED = ((10, 2), (100, 40))


def read_levels(simulation: Simulation) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return tea on hand and reserved, and money on the account and held."""
    return simulation.stock(), simulation.money()


@pytest.fixture
def simulation() -> Simulation:
    """A simulation with a placed order: two tea and two mugs, 40 euros in total."""
    simulation = Simulation()
    simulation.place_order()
    return simulation


def test_an_order_is_confirmed_once_stock_and_money_are_firm(simulation: Simulation) -> None:
    simulation.settle()
    assert (simulation.order_status, simulation.saga_status, read_levels(simulation)) == (
        "CONFIRMED",
        "CONFIRMED",
        CLAIMED,
    )
    assert simulation.sent_kinds == ["assess", "reserve", "hold_money", "firm_stock", "firm_money", "confirm"]
    simulation.advance_time(timedelta(days=30))  # firm claims have no deadline
    simulation.settle()
    assert (simulation.saga_status, read_levels(simulation)) == ("CONFIRMED", CLAIMED)


def test_shipping_commits_the_stock_and_captures_the_money(simulation: Simulation) -> None:
    simulation.settle()
    simulation.execute(SHIP)
    simulation.settle()
    assert (simulation.saga_status, read_levels(simulation)) == ("FULFILLED", ((8, 0), (60, 0)))
    assert simulation.instance.status.ended
    simulation.execute(DELIVER)
    simulation.settle()
    assert simulation.saga_status == "FULFILLED"


def test_a_returned_order_is_refunded_and_restocked(simulation: Simulation) -> None:
    simulation.settle()
    for command in (SHIP, DELIVER, RETURN):
        simulation.execute(command)
    simulation.settle()
    assert (simulation.saga_status, read_levels(simulation)) == ("RETURNED", UNCLAIMED)
    assert simulation.stock("mug") == (10, 0)


@pytest.mark.parametrize(
    ("simulation", "reason"),
    [
        (Simulation(stock=1), "STOCK_INSUFFICIENT"),
        (Simulation(money=39), "FUNDS_INSUFFICIENT"),
        (Simulation(money=0), "FUNDS_INSUFFICIENT"),
    ],
    ids=["no stock", "too little money", "no money"],
)
def test_an_order_that_cannot_be_fulfilled_is_rejected_with_the_reason(
    simulation: Simulation, reason: str
) -> None:
    before = read_levels(simulation)
    simulation.place_order()
    simulation.settle()
    assert (simulation.order_status, simulation.saga_status, read_levels(simulation)) == (
        "REJECTED",
        "REJECTED",
        before,
    )
    assert simulation.last_order_event.reason == reason
    assert simulation.timers == {}


@pytest.mark.parametrize("kind", ["reserve", "hold_money", "firm_stock", "firm_money"])
def test_a_rejected_step_before_confirmation_is_compensated(simulation: Simulation, kind: str) -> None:
    simulation.rejections = {kind: "NO_REASON"}
    simulation.settle()
    assert (simulation.order_status, read_levels(simulation)) == ("REJECTED", UNCLAIMED)


@pytest.mark.parametrize("after", range(12))
def test_a_cancelled_order_unwinds_from_any_state(after: int, simulation: Simulation) -> None:
    for _ in range(after):
        _ = simulation.deliver_event() or simulation.answer_step()
    simulation.execute(CANCEL)
    simulation.settle()
    assert (simulation.saga_status, read_levels(simulation)) == ("CANCELLED", UNCLAIMED)
    assert simulation.instance.status.ended


@pytest.mark.parametrize("before", range(9))
@pytest.mark.parametrize("late", [CANCEL, REMOVE_MUGS], ids=["cancelled", "changed"])
def test_events_of_the_order_may_arrive_late(before: int, late: object, simulation: Simulation) -> None:
    simulation.deliver_event()
    for _ in range(before):
        _ = simulation.deliver_event(stream=ACTIVITY) or simulation.answer_step()
    if simulation.order_status == "CONFIRMED" and late is REMOVE_MUGS:
        return
    simulation.execute(late)
    while simulation.deliver_event(stream=ACTIVITY) or simulation.answer_step():
        pass  # the saga has not received the event of the order yet
    simulation.settle()
    if late is CANCEL:
        assert (simulation.saga_status, read_levels(simulation)) == ("CANCELLED", UNCLAIMED)
    else:
        assert (simulation.order_status, read_levels(simulation)) == ("CONFIRMED", ((10, 2), (100, 20)))
        assert simulation.stock("mug") == (10, 0)


@pytest.mark.parametrize("at", range(8))
def test_a_step_whose_reply_is_lost_takes_effect_once(at: int, simulation: Simulation) -> None:
    for step in range(20):
        if step == at:
            simulation.lose_reply()
            simulation.lose_reply()
        _ = simulation.deliver_event() or simulation.answer_step()
    simulation.settle()
    assert (simulation.order_status, read_levels(simulation)) == ("CONFIRMED", CLAIMED)


def test_a_late_order_is_rejected_once_its_pending_step_is_answered(simulation: Simulation) -> None:
    simulation.deliver_event()
    simulation.proceed_to("reserve-1")
    simulation.lose_reply()  # reserved, but the saga does not know it
    simulation.advance_time(CONFIRMATION_TIMEOUT)
    assert (simulation.order_status, simulation.stock()) == ("PLACED", (10, 2))
    simulation.settle()
    assert (simulation.order_status, read_levels(simulation)) == ("REJECTED", UNCLAIMED)
    assert simulation.last_order_event.reason == "FULFILMENT_TIMED_OUT"


def test_a_reservation_that_expires_too_early_rejects_the_order(simulation: Simulation) -> None:
    simulation.deliver_event()
    simulation.proceed_to("firm_stock-1")
    simulation.world.now += timedelta(hours=2)
    simulation.settle()
    assert (simulation.order_status, read_levels(simulation)) == ("REJECTED", UNCLAIMED)


@pytest.fixture
def in_review() -> Simulation:
    """A simulation with an order in review: its total is large and its address new."""
    simulation = Simulation(money=10_000, price=200)
    simulation.place_order()
    simulation.settle()
    return simulation


def test_a_suspicious_order_waits_for_a_person(in_review: Simulation) -> None:
    assert (in_review.order_status, in_review.saga_status) == ("HELD", "IN_REVIEW")
    assert in_review.stock() == (10, 0)
    in_review.execute(orders.ApproveOrder("o-1"))
    in_review.settle()
    assert (in_review.order_status, in_review.stock(), in_review.money()) == (
        "CONFIRMED",
        (10, 2),
        (10_000, 800),
    )


def test_a_suspicious_order_may_be_rejected(in_review: Simulation) -> None:
    in_review.execute(orders.RejectOrder("o-1", "fraud"))
    in_review.settle()
    assert (in_review.saga_status, in_review.stock()) == ("REJECTED", (10, 0))


def test_a_review_times_out(in_review: Simulation) -> None:
    in_review.advance_time(CONFIRMATION_TIMEOUT)
    in_review.settle()
    assert in_review.order_status == "HELD"
    in_review.advance_time(REVIEW_TIMEOUT)
    in_review.settle()
    assert (in_review.order_status, in_review.saga_status) == ("REJECTED", "REJECTED")
    assert in_review.last_order_event.reason == "REVIEW_TIMED_OUT"


@pytest.mark.parametrize("after", range(9))
def test_an_order_held_by_a_person_claims_nothing_until_its_approval(
    after: int, simulation: Simulation
) -> None:
    for _ in range(after):
        _ = simulation.deliver_event() or simulation.answer_step()
    if simulation.order_status == "CONFIRMED":
        return
    simulation.execute(orders.HoldOrder("o-1", "let me see"))
    simulation.settle()
    assert (simulation.saga_status, read_levels(simulation)) == ("IN_REVIEW", UNCLAIMED)
    simulation.execute(orders.ApproveOrder("o-1"))
    simulation.settle()
    assert (simulation.order_status, read_levels(simulation)) == ("CONFIRMED", CLAIMED)


def test_a_known_address_is_less_suspicious() -> None:
    simulation = Simulation(money=10_000, price=200)
    simulation.place_order(1, order_id="o-0")
    simulation.settle()
    simulation.place_order()
    simulation.settle()
    assert simulation.order_status == "CONFIRMED"


def test_only_the_sixth_order_within_an_hour_is_suspicious() -> None:
    simulation = Simulation(stock=100, money=1_000)
    for number in range(6):
        simulation.place_order(order_id=f"o-{number + 2}" if number < 5 else "o-1")
    simulation.settle()
    held = [event.order_id for _, event in simulation.world.history if isinstance(event, orders.OrderHeld)]
    assert held == ["o-1"]


def test_an_assessment_that_is_rejected_puts_the_order_up_for_review(simulation: Simulation) -> None:
    simulation.rejections = {"assess": "NO_REASON"}
    simulation.settle()
    assert (simulation.order_status, read_levels(simulation)) == ("HELD", UNCLAIMED)
    assert simulation.instance.state.suspicion == "assessment failed: NO_REASON"


def test_nothing_is_claimed_before_the_assessment_has_arrived(simulation: Simulation) -> None:
    simulation.deliver_event(stream=ORDER)
    while simulation.answer_step():
        pass
    assert (simulation.sent_kinds, simulation.saga_status) == (["assess"], "PREPARING")
    assert simulation.instance.status.waiting_for == "the assessment of version 1"
    simulation.retry(FULFILMENT.name, "o-1")  # asks once more, which changes nothing
    simulation.settle()
    assert simulation.order_status == "CONFIRMED"
    assert simulation.world.version(ACTIVITY) == 1


def test_an_assessment_may_arrive_before_the_order(simulation: Simulation) -> None:
    simulation.execute(AssessOrder("ada", "o-1", 1))
    assert simulation.deliver_event(stream=ACTIVITY)
    assert (simulation.saga_status, simulation.instance.status.waiting_for) == ("PREPARING", "the order")
    simulation.settle()
    assert simulation.order_status == "CONFIRMED"
    assert "assess" not in simulation.sent_kinds


@pytest.mark.parametrize("after", range(9))
def test_an_edited_order_is_assessed_again_before_it_is_confirmed(after: int) -> None:
    simulation = Simulation(money=10_000, price=200)
    simulation.place_order(1)  # 400 to a new address
    for _ in range(after):
        _ = simulation.deliver_event() or simulation.answer_step()
    if simulation.order_status == "CONFIRMED":
        return
    simulation.execute(
        orders.AddOrderLine(
            "o-1", "", orders.OrderLine("pot", "pot", 1, Money("EUR", 100)), scopes=OWN_PRICES
        )
    )
    simulation.settle()
    assert (simulation.order_status, simulation.money()) == ("HELD", (10_000, 0))
    assert simulation.instance.state.suspicion == "its total is 500 EUR and its address is new"


def test_a_late_assessment_of_an_earlier_version_changes_nothing(simulation: Simulation) -> None:
    simulation.settle()
    state: Fulfilment = simulation.instance.state
    late = OrderAssessed(order_id="o-1", order_version=1, suspicions=["it is odd"])
    assert apply_input(state, EventReceived(late, 1, ACTIVITY, NOW)) == state


@pytest.mark.parametrize(
    "response", [ListOrdersResponse(orders=[Order()] * 9), GetCustomerActivityResponse(order_count=9)]
)
def test_an_assessment_asked_by_an_earlier_release_is_asked_again(
    simulation: Simulation, response: Message
) -> None:
    """The earlier release has asked a view, which may have been ahead of the order or behind it."""
    simulation.deliver_event()
    earlier = replace(
        simulation.instance.state, contents_version=0, asked_version=0, pending_steps=("assess",)
    )
    reaction = react(earlier, StepSucceeded("assess", response, at=NOW))
    (send,) = reaction.send
    assert send == Send("assess-v1", AssessOrderRequest(customer_id="ada", order_id="o-1", order_version=1))


def test_an_assessment_answered_by_an_earlier_release_stands(simulation: Simulation) -> None:
    simulation.deliver_event()
    earlier = replace(
        simulation.instance.state, contents_version=0, asked_version=0, assessed=True, pending_steps=()
    )
    assert [send.step for send in react(earlier, RetryRequested(NOW)).send] == ["reserve-1"]
    edited = replace(earlier, contents_version=2, order_version=2)
    assert [send.step.partition("-")[0] for send in react(edited, RetryRequested(NOW)).send] == [
        "assess",
        "record",
    ]


def test_a_step_rejected_after_shipping_is_retried_by_an_operator(simulation: Simulation) -> None:
    simulation.settle()
    simulation.rejections = {"capture_money": "NO_REASON"}
    simulation.execute(SHIP)
    simulation.settle()
    assert simulation.instance.status.blocked_reason == "capture_money was rejected: NO_REASON"
    assert read_levels(simulation) == ((8, 0), (100, 40))
    simulation.rejections = {}
    simulation.retry(FULFILMENT.name, "o-1")
    simulation.settle()
    assert (simulation.saga_status, read_levels(simulation)) == ("FULFILLED", ((8, 0), (60, 0)))


def test_an_operator_can_abort_only_before_confirmation(simulation: Simulation) -> None:
    simulation.deliver_event()
    simulation.proceed_to("hold_money-1")
    simulation.abort(FULFILMENT.name, "o-1", "enough")
    simulation.settle()
    assert (simulation.order_status, read_levels(simulation)) == ("REJECTED", UNCLAIMED)
    later = Simulation()
    later.place_order()
    later.settle()
    with pytest.raises(ActionNotPossible, match="cancel it"):
        later.abort(FULFILMENT.name, "o-1", "enough")


def test_a_frozen_account_pays_its_hold_but_takes_no_refund(simulation: Simulation) -> None:
    simulation.settle()
    simulation.execute(FreezeAccount("a-1", "odd", incoming_too=True))
    for command in (SHIP, DELIVER, RETURN):
        simulation.execute(command)
    simulation.settle()
    assert simulation.instance.status.blocked_reason == "refund was rejected: ACCOUNT_FROZEN"
    simulation.execute(UnfreezeAccount("a-1"))
    simulation.retry(FULFILMENT.name, "o-1")
    simulation.settle()
    assert (simulation.saga_status, read_levels(simulation)) == ("RETURNED", UNCLAIMED)


def test_an_order_that_costs_nothing_needs_no_money() -> None:
    simulation = Simulation(money=0, price=0)
    simulation.place_order()
    simulation.settle()
    assert (simulation.order_status, simulation.stock()) == ("CONFIRMED", (10, 2))
    simulation.execute(SHIP)
    simulation.settle()
    assert (simulation.saga_status, simulation.stock()) == ("FULFILLED", (8, 0))


def test_an_event_that_the_saga_does_not_know_leaves_the_orders_status() -> None:
    fulfilment = Fulfilment(order_id="o-1", order_status="CONFIRMED")
    assert apply_event(fulfilment, PersonalData(subject_id="ada")) == fulfilment
