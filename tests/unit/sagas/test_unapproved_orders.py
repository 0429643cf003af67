"""Nothing is acquired for an order that nobody cleared, whoever confirmed, shipped or returned it."""

from datetime import timedelta
from typing import Any

import pytest
from diptych.fulfilment.v1.types_pb2 import Fulfilment
from msgspec.structs import replace

from command_server.contexts.ordering.domain import messages as orders
from command_server.contexts.ordering.domain.customer_activity import AssessOrder
from command_server.kernel.money import Money
from diptych_testing import folds
from process_manager.saga import ActionNotPossible, RowTakenOver
from process_manager.sagas.fulfilment import FULFILMENT
from tests.support.builders.orders import OWN_PRICES
from tests.support.models.fulfilment_simulation import ACTIVITY, HOME, ORDER, Simulation

APPROVE, CONFIRM = orders.ApproveOrder("o-1"), orders.ConfirmOrder("o-1")
SHIP, DELIVER = orders.ShipOrder("o-1", "Swift", "123"), orders.DeliverOrder("o-1")
RETURN, CANCEL = orders.ReturnOrder("o-1", "does not fit"), orders.CancelOrder("o-1", "changed my mind")
HOLD = orders.HoldOrder("o-1", "let me see")
LAMP = orders.OrderLine("pot", "A lamp", 1, Money("EUR", 300_000))
TOTAL = "its total is 300000 EUR"
FORWARD = {"CONFIRMED": (CONFIRM,), "SHIPPED": (CONFIRM, SHIP), "RETURNED": (CONFIRM, SHIP, DELIVER, RETURN)}
"""What hostile or careless people send before the saga looks, by the status that the saga then knows."""


class Shop(Simulation):
    """A simulation with money and stock for a lamp of 300,000 euros."""

    def __init__(self) -> None:
        super().__init__(money=1_000_000)
        self.supply()
        self.before = self.read_levels()

    def place_lamp(self) -> None:
        group = orders.ShippingGroup("main", (LAMP,), HOME, "w-1")
        self.execute(orders.PlaceOrder("o-1", "ada", (group,), "a-1", scopes=OWN_PRICES))

    def read_levels(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return self.stock("pot"), self.money()

    @property
    def blocked(self) -> tuple[str, str]:
        status = self.instance.status
        return status.state, status.blocked_reason


@pytest.fixture
def shop() -> Shop:
    shop = Shop()
    shop.place_lamp()
    return shop


@pytest.mark.parametrize("after", range(4))
@pytest.mark.parametrize("status", FORWARD)
def test_a_suspicious_order_that_nobody_approved_is_blocked(status: str, after: int, shop: Shop) -> None:
    for _ in range(after):
        _ = shop.deliver_event() or shop.answer_step()
    if shop.order_status != "PLACED":
        return  # the saga was faster, and the order is held
    shop.execute(*FORWARD[status])
    shop.settle()
    assert shop.blocked == ("BLOCKED", f"{status.lower()}, but nobody has approved it: {TOTAL}")
    assert shop.read_levels() == shop.before
    shop.retry(FULFILMENT.name, "o-1")
    shop.advance_time(timedelta(days=30))
    shop.settle()
    assert (shop.saga_status, shop.read_levels()) == ("BLOCKED", shop.before)


@pytest.mark.parametrize(
    ("status", "end", "levels"),
    [
        ("CONFIRMED", "CONFIRMED", ((10, 1), (1_001_000, 300_000))),
        ("SHIPPED", "FULFILLED", ((9, 0), (701_000, 0))),
        ("RETURNED", "RETURNED", ((10, 0), (1_001_000, 0))),
    ],
)
def test_a_blocked_order_goes_on_once_a_person_approves_it(
    status: str, end: str, levels: object, shop: Shop
) -> None:
    shop.execute(*FORWARD[status])
    shop.settle()
    shop.execute(APPROVE)
    assert shop.order_status == status
    shop.settle()
    assert (shop.saga_status, shop.instance.status.blocked_reason, shop.read_levels()) == (end, "", levels)
    folds.compare(shop.world)


def test_a_blocked_order_that_is_cancelled_unwinds(shop: Shop) -> None:
    shop.execute(CONFIRM)
    shop.settle()
    with pytest.raises(ActionNotPossible, match="cancel it instead"):
        shop.abort(FULFILMENT.name, "o-1", "fraud")
    shop.execute(CANCEL)
    shop.settle()
    assert (shop.saga_status, shop.read_levels()) == ("CANCELLED", shop.before)


@pytest.mark.parametrize("status", ["SHIPPED", "RETURNED"])
def test_a_blocked_order_that_was_shipped_is_aborted(status: str, shop: Shop) -> None:
    shop.execute(*FORWARD[status])
    shop.settle()
    shop.abort(FULFILMENT.name, "o-1", "fraud")
    shop.settle()
    assert (shop.saga_status, shop.instance.status.ended) == ("ABORTED", True)
    shop.execute(APPROVE, *((DELIVER, RETURN) if status == "SHIPPED" else ()))  # too late
    shop.settle()
    assert (shop.saga_status, shop.read_levels()) == ("ABORTED", shop.before)
    with pytest.raises(ActionNotPossible, match="cannot abort: the order is RETURNED"):
        shop.abort(FULFILMENT.name, "o-1", "fraud")


def test_an_abort_releases_what_was_claimed_before_the_order_was_edited() -> None:
    shop = Shop()
    shop.place_order()
    shop.deliver_event()
    shop.proceed_to("confirm-1")  # stock and money are firm
    shop.execute(orders.AddOrderLine("o-1", "", LAMP, scopes=OWN_PRICES), CONFIRM, SHIP)
    assert shop.money()[1] == 40
    while shop.deliver_event(stream=ORDER):
        pass
    shop.abort(FULFILMENT.name, "o-1", "fraud")
    assert shop.saga_status == "UNWINDING"
    shop.settle()
    assert (shop.saga_status, shop.read_levels(), shop.stock()) == ("ABORTED", shop.before, (20, 0))


def test_a_shipped_order_that_nobody_can_pay_may_be_aborted() -> None:
    simulation = Simulation(money=0)
    simulation.place_order()
    simulation.execute(CONFIRM, SHIP)
    simulation.settle()
    assert simulation.instance.status.blocked_reason == "confirmed, but FUNDS_INSUFFICIENT"
    simulation.abort(FULFILMENT.name, "o-1", "lost")
    simulation.settle()
    assert (simulation.saga_status, simulation.stock()) == ("ABORTED", (10, 0))


def test_an_order_whose_goods_have_left_is_not_aborted() -> None:
    simulation = Simulation()
    simulation.place_order()
    simulation.settle()
    simulation.rejections = {"capture_money": "NO_REASON"}
    simulation.execute(SHIP)
    simulation.settle()
    with pytest.raises(ActionNotPossible, match="the order is SHIPPED"):
        simulation.abort(FULFILMENT.name, "o-1", "lost")


def test_a_harmless_order_that_a_person_confirms_is_assessed_before_it_is_claimed() -> None:
    simulation = Simulation()
    simulation.place_order()
    simulation.execute(CONFIRM, SHIP)
    simulation.deliver_event(stream=ORDER)
    simulation.deliver_event(stream=ORDER)
    simulation.answer_step()
    assert (simulation.sent_kinds, simulation.saga_status) == (["assess"], "PREPARING")
    assert simulation.instance.status.waiting_for == "the assessment of version 1"
    simulation.settle()
    assert simulation.saga_status == "FULFILLED"


def test_an_assessment_that_fails_blocks_a_confirmed_order() -> None:
    simulation = Simulation()
    simulation.rejections = {"assess": "NO_REASON"}
    simulation.place_order()
    simulation.execute(CONFIRM)
    simulation.settle()
    assert simulation.saga_status == "BLOCKED"
    simulation.execute(APPROVE)
    simulation.settle()
    assert (simulation.saga_status, simulation.money()) == ("CONFIRMED", (100, 40))


@pytest.mark.parametrize(
    "edit",
    [
        orders.AddOrderLine("o-1", "", LAMP, scopes=OWN_PRICES),
        orders.ChangeShippingAddress(
            "o-1", "", orders.ShippingAddress("Eve", ("Back Yard 2",), "10115", "Berlin", "DE")
        ),
    ],
    ids=["dearer", "elsewhere"],
)
@pytest.mark.parametrize("by_hand", [(), (CONFIRM,), (CONFIRM, SHIP)], ids=["saga", "confirmed", "shipped"])
def test_an_approval_is_of_the_order_as_it_was_approved(edit: Any, by_hand: tuple[Any, ...]) -> None:
    """A small order is approved, then made large or sent elsewhere before it is confirmed."""
    shop = Shop()
    shop.price = 200
    shop.place_order()
    shop.settle()
    shop.execute(APPROVE, edit, *by_hand)
    shop.settle()
    assert shop.saga_status == ("BLOCKED" if by_hand else "IN_REVIEW")
    assert (shop.read_levels(), shop.stock()) == (shop.before, (20, 0))
    shop.execute(APPROVE)
    shop.settle()
    assert shop.saga_status == ("FULFILLED" if SHIP in by_hand else "CONFIRMED")


def test_an_order_that_was_approved_before_it_was_assessed_is_assessed_all_the_same(shop: Shop) -> None:
    shop.execute(HOLD, APPROVE)
    shop.settle()
    assert (shop.saga_status, shop.sent_kinds[0]) == ("CONFIRMED", "assess")


def test_what_an_earlier_release_claimed_for_an_unapproved_order_is_released_on_takeover(shop: Shop) -> None:
    shop.execute(HOLD, APPROVE)
    shop.settle()
    earlier = replace(shop.instance.state, approved=False, record_format=0)
    assert FULFILMENT.needs_input(earlier)
    reaction = FULFILMENT.react(earlier, RowTakenOver(shop.world.now))
    release, recorded = reaction.send
    assert (release.step, FULFILMENT.describe_status(reaction.state).state) == ("release_money-1", "BLOCKED")
    assert recorded.request.state == Fulfilment.STATE_BLOCKED  # type: ignore[attr-defined]


def test_an_assessment_of_a_version_that_the_saga_does_not_have_clears_nothing() -> None:
    """The saga knows the large order that it was; the assessment is of the small one that it is."""
    shop = Shop()
    shop.place_lamp()
    mug = orders.OrderLine("mug", "mug", 1, Money("EUR", 10))
    shop.execute(orders.AddOrderLine("o-1", "", mug, scopes=OWN_PRICES))
    shop.execute(orders.RemoveOrderLine("o-1", "", "pot"), AssessOrder("ada", "o-1", 3))
    shop.deliver_event(stream=ORDER)
    shop.deliver_event(stream=ACTIVITY)
    while shop.answer_step():
        pass
    assert shop.read_levels() == shop.before
    assert shop.instance.status.waiting_for == "version 3 of the order"
    shop.settle()
    assert (shop.saga_status, shop.money()[1]) == ("CONFIRMED", 10)
