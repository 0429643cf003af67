"""AssessOrder: the fraud rules, and what an assessment knows."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from command_server.contexts.ordering import CONTEXT
from command_server.contexts.ordering.domain import customer_activity, fraud
from command_server.contexts.ordering.domain.customer_activity import (
    ACTIVITY,
    MAX_ASSESSMENTS,
    AssessOrder,
    OrderAssessed,
)
from command_server.contexts.ordering.domain.messages import (
    CancelOrder,
    ChangeShippingAddress,
    ConfirmOrder,
    OrderLine,
    RejectOrder,
)
from command_server.kernel.context import command_types
from command_server.kernel.money import Money
from diptych_testing.world import World
from tests.support.builders.orders import ELSEWHERE, GROUP, PLACE

STREAM = ACTIVITY.stream("c-1")


@pytest.fixture
def world() -> World:
    return World(*CONTEXT.deciders)


def place(world: World, order_id: str, units: int = 40, **more: Any) -> None:
    line = OrderLine("tea", "Tea", 1, Money("EUR", units))
    group = replace(GROUP, lines=(line,), **more)
    world.execute(replace(PLACE, order_id=order_id, shipping_groups=(group,)))


def assess(world: World, order_id: str, version: int = 1) -> OrderAssessed:
    (event,) = world.execute(AssessOrder("c-1", order_id, version))
    assert isinstance(event, OrderAssessed)
    return event


@pytest.mark.parametrize(
    ("units", "recent", "new_groups", "suspicions"),
    [
        (499, 4, ["main"], []),
        (500, 0, ["main"], ["its total is 500 EUR and its address is new"]),
        (4_999, 4, [], []),
        (5_000, 0, ["main"], ["its total is 5000 EUR"]),
        (40, 5, [], ["the customer placed 5 orders or more in the hour before"]),
        (
            5_000,
            5,
            [],
            ["its total is 5000 EUR", "the customer placed 5 orders or more in the hour before"],
        ),
    ],
)
def test_the_fraud_rules(units: int, recent: int, new_groups: list[str], suspicions: list[str]) -> None:
    circumstances = fraud.Circumstances(Money("EUR", units), ["o"] * recent, new_groups)
    assert fraud.find_suspicions(circumstances) == suspicions


def test_an_assessment_records_what_it_knew(world: World) -> None:
    place(world, "early")
    world.now += timedelta(minutes=61)
    for order_id in ("first", "second", "o-1"):
        place(world, order_id)
    world.execute(CancelOrder("first", "changed my mind"))
    assert assess(world, "o-1") == OrderAssessed(
        "c-1", "o-1", 1, Money("EUR", 40), ("second", "first"), ("main",), (), world.now
    )


def test_orders_count_for_an_hour(world: World) -> None:
    place(world, "early")
    world.now += timedelta(hours=1)
    place(world, "o-1")
    world.now += timedelta(microseconds=1)
    place(world, "o-2")
    assert assess(world, "o-1").recent_order_ids == ("early",)
    assert assess(world, "o-2").recent_order_ids == ("o-1",)


def test_what_happens_after_an_order_was_placed_does_not_count(world: World) -> None:
    place(world, "before")
    place(world, "o-1", 4_000)
    place(world, "after")
    world.execute(ConfirmOrder("before"))
    assert assess(world, "o-1").recent_order_ids == ("before",)
    assert assess(world, "after").new_address_group_ids == ("main",)


def test_a_confirmed_orders_address_is_known_and_a_rejected_ones_is_not(world: World) -> None:
    place(world, "moved")
    world.execute(ChangeShippingAddress("moved", "", ELSEWHERE), ConfirmOrder("moved"))
    place(world, "rejected")
    world.execute(RejectOrder("rejected", "fraud"))
    place(world, "home", 4_000)
    place(world, "away", 4_000, shipping_address=ELSEWHERE)
    assert assess(world, "home").new_address_group_ids == ("main",)
    assert assess(world, "away").new_address_group_ids == ()


def test_a_version_of_an_order_is_assessed_once(world: World) -> None:
    place(world, "o-1")
    world.execute(ChangeShippingAddress("o-1", "", ELSEWHERE))
    assess(world, "o-1", 2)
    assess(world, "o-1", 1)
    world.assert_unchanged(AssessOrder("c-1", "o-1", 1))
    world.assert_unchanged(AssessOrder("c-1", "o-1", 2))


def test_the_state_is_bounded_and_a_repetition_of_an_old_assessment_is_equal(world: World) -> None:
    for number in range(MAX_ASSESSMENTS + 1):
        place(world, f"o-{number}")
    events = [assess(world, f"o-{number}") for number in range(MAX_ASSESSMENTS + 1)]
    assert len(world.state(STREAM).assessments) == MAX_ASSESSMENTS
    world.now += timedelta(days=1)
    assert replace(assess(world, "o-0"), assessed_at=events[0].assessed_at) == events[0]


def test_an_order_that_cannot_be_assessed_is_rejected(world: World) -> None:
    world.assert_rejected(AssessOrder("c-1", "o-1", 1), "ORDER_NOT_FOUND")
    place(world, "o-1")
    world.assert_rejected(AssessOrder("c-1", "o-1", 2), "ORDER_NOT_FOUND", order_version="2")
    world.assert_rejected(AssessOrder("c-2", "o-1", 1), "ORDER_OF_ANOTHER_CUSTOMER", order_id="o-1")


def test_an_address_that_is_sealed_is_new(world: World) -> None:
    place(world, "sealed")
    world.execute(ConfirmOrder("sealed"))
    place(world, "o-1")
    earlier = world.find_earlier_events(customer_activity.EARLIER_ORDERS, AssessOrder("c-1", "o-1", 1))
    assert earlier is not None
    order = earlier.state
    (group,) = order.contents.groups
    sealed = replace(order.contents, groups=(replace(group, shipping_address=None),))
    found = customer_activity.find_circumstances(replace(order, contents=sealed), earlier)
    assert found.new_address_group_ids == ["main"]


def test_a_command_with_earlier_events_needs_a_decider_with_a_lookup() -> None:
    without = tuple(replace(decider, lookup=None) for decider in CONTEXT.deciders)
    with pytest.raises(TypeError, match="AssessOrder: earlier_events belongs to deciders with a lookup"):
        command_types(replace(CONTEXT, deciders=without))
