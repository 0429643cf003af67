"""Purchases of tickets, and cancellations of shows, on the real rules, in memory."""

from collections import Counter
from datetime import timedelta

import pytest

from command_server.contexts.banking.domain.messages import CloseAccount, FreezeAccount, UnfreezeAccount
from command_server.contexts.ticketing.domain.messages import (
    CancelShow,
    LeaveWaitingList,
    ReleaseSeats,
    ReturnTickets,
)
from process_manager.saga import ActionNotPossible
from process_manager.sagas.purchase import PURCHASE_TIMEOUT
from tests.support.builders.theatre import get_booking, hold, join
from tests.support.models.ticketing_simulation import Simulation

STEPS = ("hold_money", "firm_money", "issue", "capture_money")
RETURN, CANCEL = ReturnTickets("b-1", "ill"), CancelShow("s-1", "rain")


def bought(*, money: int = 100) -> Simulation:
    simulation = Simulation(money=money)
    simulation.buy()
    return simulation


def proceed_to(simulation: Simulation, step: str) -> None:
    """Deliver events and answer steps until this step is the next one."""
    while not (simulation.pending and simulation.pending[0].is_kind(step)):
        assert simulation.deliver_event() or simulation.answer_step()


def test_a_purchase_ends_with_tickets_and_the_price_paid() -> None:
    simulation = bought()
    simulation.settle()
    assert simulation.read() == ("SOLD", "SOLD", (60, 0), 2)
    assert tuple(sent.name for sent in simulation.sent) == STEPS


def test_returned_tickets_are_refunded() -> None:
    simulation = bought()
    simulation.settle()
    simulation.execute(RETURN)
    simulation.settle()
    assert simulation.read() == ("RETURNED", "RETURNED", (100, 0), 0)


def test_seats_that_cannot_be_paid_for_are_free_again() -> None:
    simulation = bought(money=30)
    simulation.settle()
    assert simulation.read() == ("RELEASED", "FAILED", (30, 0), 0)
    assert simulation.world.history[-3][1].reason == "FUNDS_INSUFFICIENT"


@pytest.mark.parametrize("step", STEPS)
def test_a_cancelled_show_costs_nobody_anything_whenever_it_comes(step: str) -> None:
    simulation = bought()
    proceed_to(simulation, step)
    simulation.execute(CANCEL)
    settle_all(simulation)
    booking, _, money, seats = simulation.read()
    assert (money, seats, simulation.sold) == ((100, 0), 0, 0)
    assert booking == ("RETURNED" if step == "capture_money" else "RELEASED")
    assert simulation.find_instance("ticketing.cancellation", "s-1").status.state == "SETTLED"


def settle_all(simulation: Simulation) -> None:
    simulation.settle()
    simulation.advance_time(timedelta(seconds=2))
    simulation.settle()


@pytest.mark.parametrize("step", [*STEPS, "refund"])
def test_a_step_whose_reply_is_lost_has_its_effect_once(step: str) -> None:
    simulation = bought()
    if step == "refund":
        simulation.settle()
        simulation.execute(RETURN)
    proceed_to(simulation, step)
    simulation.lose_reply()
    simulation.settle()
    if step != "refund":
        simulation.execute(RETURN)
        simulation.settle()
    assert simulation.read() == ("RETURNED", "RETURNED", (100, 0), 0)
    counts = Counter(type(event).__name__ for _, event in simulation.world.history)
    assert (counts["HoldCaptured"], counts["RefundPaid"], counts["TicketsIssued"]) == (1, 1, 1)


@pytest.mark.parametrize("step", ["hold_money", "firm_money", "issue"])
def test_a_purchase_that_takes_too_long_fails_unless_its_tickets_are_being_issued(step: str) -> None:
    simulation = bought()
    proceed_to(simulation, step)
    simulation.advance_time(PURCHASE_TIMEOUT)
    simulation.settle()
    expected = ("SOLD", "SOLD", (60, 0), 2) if step == "issue" else ("RELEASED", "FAILED", (100, 0), 0)
    assert simulation.read() == expected


def test_an_operator_ends_a_purchase_before_its_tickets_are_issued() -> None:
    simulation = bought()
    proceed_to(simulation, "firm_money")
    simulation.abort("purchase.purchase", "b-1", "fraud")
    simulation.settle()
    assert simulation.read() == ("RELEASED", "FAILED", (100, 0), 0)


def test_an_operator_cannot_end_a_purchase_that_issues_its_tickets() -> None:
    simulation = bought()
    proceed_to(simulation, "issue")
    with pytest.raises(ActionNotPossible, match="return them instead"):
        simulation.abort("purchase.purchase", "b-1", "fraud")


def test_a_refund_that_the_account_refuses_waits_for_an_operator() -> None:
    simulation = bought()
    simulation.settle()
    simulation.execute(FreezeAccount("a-1", "check", True), RETURN)
    simulation.settle()
    assert simulation.purchase().status.blocked_reason == "refund was rejected: ACCOUNT_FROZEN"
    simulation.execute(UnfreezeAccount("a-1"))
    simulation.retry("purchase.purchase", "b-1")
    simulation.settle()
    assert simulation.read() == ("RETURNED", "RETURNED", (100, 0), 0)


def test_tickets_returned_before_the_price_is_captured_are_refunded() -> None:
    simulation = bought()
    proceed_to(simulation, "capture_money")
    simulation.execute(RETURN)
    while simulation.deliver_event():
        pass
    simulation.settle()
    assert simulation.read() == ("RETURNED", "RETURNED", (100, 0), 0)


def test_tickets_returned_before_their_issue_is_answered_are_paid_and_refunded() -> None:
    simulation = bought()
    proceed_to(simulation, "issue")
    simulation.lose_reply()
    simulation.execute(RETURN)
    while simulation.deliver_event():
        pass
    simulation.settle()
    assert simulation.read() == ("RETURNED", "RETURNED", (100, 0), 0)


def test_all_tickets_of_a_cancelled_show_are_refunded_page_by_page() -> None:
    simulation = Simulation(money=1_000)
    for number in range(9):
        simulation.buy(f"b-{number}", 1, buyer=f"u-{number}")
    simulation.settle()
    assert simulation.sold == 9
    simulation.unlisted.update({"b-3", "b-4"})  # the read side lags
    simulation.execute(CANCEL)
    simulation.settle()
    assert simulation.sold == 2
    simulation.unlisted.clear()
    settle_all(simulation)
    assert (simulation.sold, simulation.read("b-3")) == (0, ("RETURNED", "RETURNED", (1_000, 0), 0))
    cancellation = simulation.find_instance("ticketing.cancellation", "s-1")
    assert cancellation.status.state == "SETTLED"


def test_a_rejected_refund_is_tried_again_after_a_pause() -> None:
    simulation = bought()
    simulation.settle()
    simulation.rejections["refund"] = "NOT_NOW"  # of the cancellation, and of the purchase
    simulation.execute(CANCEL)
    simulation.settle()
    assert simulation.sold == 2
    simulation.rejections.clear()
    settle_all(simulation)
    assert simulation.read() == ("RETURNED", "RETURNED", (100, 0), 0)


def test_held_seats_expire_unless_they_are_being_paid_for() -> None:
    simulation = Simulation()
    simulation.execute(hold("b-2", 3, buyer="bob"))
    simulation.buy()
    simulation.settle()
    simulation.advance_time(timedelta(minutes=11))
    simulation.settle()
    assert simulation.read()[3] == 2


def test_an_account_that_is_closed_pays_for_nothing() -> None:
    simulation = Simulation(money=0)
    simulation.execute(CloseAccount("a-1"))
    simulation.buy()
    simulation.settle()
    assert simulation.read() == ("RELEASED", "FAILED", (0, 0), 0)


def test_freed_seats_are_offered_until_nobody_waits_or_none_is_left() -> None:
    simulation = Simulation(money=0)
    simulation.execute(hold("b-1", 6), hold("b-2", 4, buyer="bob"))
    simulation.execute(join("w-1", 2), join("w-2", 2), join("w-3", 5))
    simulation.execute(ReleaseSeats("b-1", "enough"))
    simulation.settle()
    bookings = {name: get_booking(simulation.world, name).status.value for name in ("w-1", "w-2", "w-3")}
    assert bookings == {"w-1": "HELD", "w-2": "HELD", "w-3": "NONE"}
    simulation.execute(LeaveWaitingList("s-1", "stalls", "w-3"))
    simulation.settle()
    simulation.execute(hold("b-3", 2, buyer="cy"))


def test_an_offer_that_expires_goes_to_the_next_one() -> None:
    simulation = Simulation(money=0)
    simulation.execute(hold("b-1", 6), hold("b-2", 4, buyer="bob"), join("w-1", 6), join("w-2", 6))
    simulation.execute(ReleaseSeats("b-1", "enough"))
    simulation.settle()
    assert get_booking(simulation.world, "w-1").status.value == "HELD"
    simulation.advance_time(timedelta(minutes=11))
    simulation.settle()
    assert get_booking(simulation.world, "w-2").status.value == "HELD"


def test_seats_freed_while_an_offer_is_unanswered_are_offered_too() -> None:
    simulation = Simulation(money=0)
    simulation.execute(hold("b-1", 6), hold("b-2", 4, buyer="bob"), join("w-1", 6))
    simulation.execute(ReleaseSeats("b-2", "enough"))
    while simulation.deliver_event():
        pass
    simulation.rejections["offer"] = "SEATS_TAKEN"  # as if it came before the next release
    simulation.lose_reply()
    simulation.rejections.clear()
    simulation.execute(ReleaseSeats("b-1", "enough"))
    simulation.deliver_event("ticketing.offers")
    simulation.settle()
    assert get_booking(simulation.world, "w-1").status.value == "HELD"
