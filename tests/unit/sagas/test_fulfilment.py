"""The fulfilment of an order, on the real rules of ordering, inventory and banking."""

from datetime import timedelta

import pytest

from command_server.contexts.banking.domain.messages import FreezeAccount, UnfreezeAccount
from command_server.contexts.ordering.domain import messages as orders
from process_manager.saga import AbortRequested, ActionNotPossible, RetryRequested
from process_manager.sagas.fulfilment import PATIENCE, REVIEW
from tests.support.models.company import HOME, Company, earlier_order

CANCEL = orders.CancelOrder("o-1", "changed my mind")
SHIP = orders.ShipOrder("o-1", "Swift", "123")
DELIVER, RETURN = orders.DeliverOrder("o-1"), orders.ReturnOrder("o-1", "does not fit")
LESS = orders.RemoveOrderLine("o-1", "", "mug")
UNTOUCHED = ((10, 0), (100, 0))
KEPT = ((10, 2), (100, 40))


def levels(company: Company) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return tea and money: what there is of each, and what of it is kept for the order."""
    return company.stock(), company.money()


@pytest.fixture
def company() -> Company:
    """A company with a placed order of two of each, for 40."""
    made = Company()
    made.place()
    return made


def test_an_order_is_confirmed_with_its_stock_reserved_and_its_money_held(company: Company) -> None:
    company.settle()
    assert (company.order_status, company.status, levels(company)) == ("CONFIRMED", "CONFIRMED", KEPT)
    assert company.sent == ["assess", "reserve", "hold_money", "firm_stock", "firm_money", "confirm"]
    company.wait(timedelta(days=30))  # what is firm has no deadline
    company.settle()
    assert (company.status, levels(company)) == ("CONFIRMED", KEPT)


def test_on_shipping_the_goods_leave_and_the_money_is_taken(company: Company) -> None:
    company.settle()
    company.do(SHIP)
    company.settle()
    assert (company.status, levels(company)) == ("FULFILLED", ((8, 0), (60, 0)))
    assert company.saga.status.ended
    company.do(DELIVER)
    company.settle()
    assert company.status == "FULFILLED"


def test_a_returned_order_is_refunded_and_restocked(company: Company) -> None:
    company.settle()
    for command in (SHIP, DELIVER, RETURN):
        company.do(command)
    company.settle()
    assert (company.status, levels(company)) == ("RETURNED", UNTOUCHED)
    assert company.stock("mug") == (10, 0)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (Company(stock=1), "STOCK_INSUFFICIENT"),
        (Company(money=39), "FUNDS_INSUFFICIENT"),
        (Company(money=0), "FUNDS_INSUFFICIENT"),
    ],
    ids=["no stock", "too little money", "no money"],
)
def test_what_cannot_be_fulfilled_is_rejected_with_the_reason(made: Company, reason: str) -> None:
    before = levels(made)
    made.place()
    made.settle()
    assert (made.order_status, made.status, levels(made)) == ("REJECTED", "REJECTED", before)
    assert made.world.history[-1][1].reason == reason
    assert made.timers == {}


@pytest.mark.parametrize("kind", ["reserve", "hold_money", "firm_stock", "firm_money"])
def test_whatever_is_refused_before_confirmation_undoes_the_rest(company: Company, kind: str) -> None:
    company.refuse = {kind: "NO_REASON"}
    company.settle()
    assert (company.order_status, levels(company)) == ("REJECTED", UNTOUCHED)


@pytest.mark.parametrize("after", range(12))
def test_a_cancelled_order_unwinds_from_wherever_it_is(after: int, company: Company) -> None:
    for _ in range(after):
        _ = company.hear() or company.answer()
    company.do(CANCEL)
    company.settle()
    assert (company.status, levels(company)) == ("CANCELLED", UNTOUCHED)
    assert company.saga.status.ended


@pytest.mark.parametrize("before", range(8))
@pytest.mark.parametrize("late", [CANCEL, LESS], ids=["cancelled", "changed"])
def test_what_happens_to_the_order_may_be_heard_late(before: int, late: object, company: Company) -> None:
    company.hear()
    for _ in range(before):
        company.answer()
    if company.order_status == "CONFIRMED" and late is LESS:
        return
    company.do(late)
    while company.answer():  # the saga does not know yet
        pass
    company.settle()
    if late is CANCEL:
        assert (company.status, levels(company)) == ("CANCELLED", UNTOUCHED)
    else:
        assert (company.order_status, levels(company)) == ("CONFIRMED", ((10, 2), (100, 20)))
        assert company.stock("mug") == (10, 0)


@pytest.mark.parametrize("at", range(8))
def test_an_answer_that_is_lost_repeats_nothing(at: int, company: Company) -> None:
    for step in range(20):
        if step == at:
            company.lose()
            company.lose()
        _ = company.hear() or company.answer()
    company.settle()
    assert (company.order_status, levels(company)) == ("CONFIRMED", KEPT)


def test_an_order_that_takes_too_long_is_rejected_once_what_is_under_way_is_answered(
    company: Company,
) -> None:
    company.hear()
    company.answer()
    company.lose()  # reserved, but nobody knows
    company.wait(PATIENCE)
    assert (company.order_status, company.stock()) == ("PLACED", (10, 2))
    company.settle()
    assert (company.order_status, levels(company)) == ("REJECTED", UNTOUCHED)
    assert company.world.history[-1][1].reason == "FULFILMENT_TIMED_OUT"


def test_a_reservation_that_has_expired_meanwhile_is_refused_and_undone(company: Company) -> None:
    company.hear()
    for _ in range(3):
        company.answer()
    company.world.now += timedelta(hours=2)
    company.settle()
    assert (company.order_status, levels(company)) == ("REJECTED", UNTOUCHED)


@pytest.fixture
def suspicious() -> Company:
    """A company with an order that goes to a new address for a lot of money."""
    made = Company(money=10_000, price=200)
    made.place()
    made.settle()
    return made


def test_a_suspicious_order_waits_for_a_person(suspicious: Company) -> None:
    assert (suspicious.order_status, suspicious.status) == ("HELD", "IN_REVIEW")
    assert suspicious.stock() == (10, 0)
    suspicious.do(orders.ApproveOrder("o-1"))
    suspicious.settle()
    assert (suspicious.order_status, suspicious.stock(), suspicious.money()) == (
        "CONFIRMED",
        (10, 2),
        (10_000, 800),
    )


def test_a_suspicious_order_may_be_rejected(suspicious: Company) -> None:
    suspicious.do(orders.RejectOrder("o-1", "fraud"))
    suspicious.settle()
    assert (suspicious.status, suspicious.stock()) == ("REJECTED", (10, 0))


def test_a_review_does_not_take_for_ever(suspicious: Company) -> None:
    suspicious.wait(PATIENCE)
    suspicious.settle()
    assert suspicious.order_status == "HELD"
    suspicious.wait(REVIEW)
    suspicious.settle()
    assert (suspicious.order_status, suspicious.status) == ("REJECTED", "REJECTED")
    assert suspicious.world.history[-1][1].reason == "REVIEW_TIMED_OUT"


@pytest.mark.parametrize("after", range(9))
def test_an_order_held_by_a_person_keeps_nothing_until_it_is_approved(after: int, company: Company) -> None:
    for _ in range(after):
        _ = company.hear() or company.answer()
    if company.order_status == "CONFIRMED":
        return
    company.do(orders.HoldOrder("o-1", "let me see"))
    company.settle()
    assert (company.status, levels(company)) == ("IN_REVIEW", UNTOUCHED)
    company.do(orders.ApproveOrder("o-1"))
    company.settle()
    assert (company.order_status, levels(company)) == ("CONFIRMED", KEPT)


def test_a_known_address_is_less_suspicious() -> None:
    made = Company(money=10_000, price=200)
    made.earlier = [earlier_order(minutes=100)]
    made.place(address=HOME)
    made.settle()
    assert made.order_status == "CONFIRMED"


def test_many_orders_within_an_hour_are_suspicious(company: Company) -> None:
    company.earlier = [earlier_order(minutes) for minutes in (5, 10, 15, 20, 59)]
    company.settle()
    assert company.order_status == "HELD"


def test_after_shipping_steps_are_tried_until_they_succeed(company: Company) -> None:
    company.settle()
    company.refuse = {"capture_money": "NO_REASON"}
    company.do(SHIP)
    company.settle()
    assert company.saga.status.blocked_reason == "capture_money was refused: NO_REASON"
    assert levels(company) == ((8, 0), (100, 40))
    company.refuse = {}
    company.tell(RetryRequested(company.world.now))
    company.settle()
    assert (company.status, levels(company)) == ("FULFILLED", ((8, 0), (60, 0)))


def test_an_operator_ends_an_order_before_its_confirmation_and_not_after(company: Company) -> None:
    company.hear()
    company.answer()
    company.answer()
    company.tell(AbortRequested("enough", company.world.now))
    company.settle()
    assert (company.order_status, levels(company)) == ("REJECTED", UNTOUCHED)
    later = Company()
    later.place()
    later.settle()
    with pytest.raises(ActionNotPossible, match="cancel it"):
        later.tell(AbortRequested("enough", later.world.now))


def test_an_account_that_is_frozen_meanwhile_still_pays_for_what_it_has_promised(company: Company) -> None:
    company.settle()
    company.do(FreezeAccount("a-1", "odd", incoming_too=True))
    for command in (SHIP, DELIVER, RETURN):
        company.do(command)
    company.settle()
    assert company.saga.status.blocked_reason == "refund was refused: ACCOUNT_FROZEN"
    company.do(UnfreezeAccount("a-1"))
    company.tell(RetryRequested(company.world.now))
    company.settle()
    assert (company.status, levels(company)) == ("RETURNED", UNTOUCHED)


def test_an_order_that_costs_nothing_needs_no_money() -> None:
    made = Company(money=0, price=0)
    made.place()
    made.settle()
    assert (made.order_status, made.stock()) == ("CONFIRMED", (10, 2))
    made.do(SHIP)
    made.settle()
    assert (made.status, made.stock()) == ("FULFILLED", (8, 0))
