"""What ordering's rules say, given a past."""

from dataclasses import replace

import pytest

from command_server.contexts.ordering.domain.order import (
    DECIDER,
    ORDER,
    CancelOrder,
    ConfirmOrder,
    OrderCancelled,
    OrderConfirmed,
    OrderLine,
    OrderPlaced,
    PersonalData,
    PlaceOrder,
    ShippingAddress,
)
from command_server.kernel.money import MAX_UNITS, Money
from tests.support.scenario import NOW, Scenario

ADDRESS = ShippingAddress("Ada", ("Main Street 1",), "12345", "Town", "DE")
LINE = OrderLine("sku-1", "A thing", 3, Money("EUR", 9, 990_000_000))
PLACE = PlaceOrder("o-1", "c-1", (LINE,), ADDRESS, "a-1", "w-1")
PLACED = OrderPlaced(
    "o-1", "c-1", (LINE,), Money("EUR", 29, 970_000_000), PersonalData("c-1", ADDRESS), "a-1", "w-1", NOW
)
CONFIRMED = OrderConfirmed("o-1", NOW)
CANCELLED = OrderCancelled("o-1", "changed my mind", NOW)
CONFIRM = ConfirmOrder("o-1")
CANCEL = CancelOrder("o-1", "changed my mind")

order = Scenario(ORDER, DECIDER)


def test_placing_an_order_sums_its_lines_exactly() -> None:
    order.given().when(PLACE).then(PLACED)


def test_an_order_is_placed_once() -> None:
    order.given(PLACED).when(PLACE).refused("ORDER_EXISTS", order_id="o-1")


def test_a_cancelled_order_cannot_be_placed_again() -> None:
    order.given(PLACED, CANCELLED).when(PLACE).refused("ORDER_EXISTS", order_id="o-1")


@pytest.mark.parametrize("command", [CONFIRM, CANCEL])
def test_what_was_never_placed_is_not_found(command: object) -> None:
    order.given().when(command).refused("ORDER_NOT_FOUND", order_id="o-1")


def test_a_placed_order_is_confirmed() -> None:
    order.given(PLACED).when(CONFIRM).then(CONFIRMED)


def test_confirming_twice_changes_nothing() -> None:
    order.given(PLACED, CONFIRMED).when(CONFIRM).then()


def test_a_cancelled_order_cannot_be_confirmed() -> None:
    order.given(PLACED, CANCELLED).when(CONFIRM).refused("ORDER_ALREADY_CANCELLED", order_id="o-1")


@pytest.mark.parametrize("past", [(PLACED,), (PLACED, CONFIRMED)])
def test_an_order_that_is_not_over_is_cancelled(past: tuple[object, ...]) -> None:
    order.given(*past).when(CANCEL).then(CANCELLED)


def test_cancelling_twice_changes_nothing() -> None:
    order.given(PLACED, CANCELLED).when(CancelOrder("o-1", "again")).then()


def test_lines_in_two_currencies_are_refused() -> None:
    dollars = replace(LINE, unit_price=Money("USD", 1))
    mixed = replace(PLACE, lines=(LINE, dollars))
    order.given().when(mixed).refused("ORDER_CURRENCY_MIXED", currencies="EUR and USD")


def test_a_total_that_does_not_fit_is_refused_and_not_wrapped() -> None:
    dear = replace(LINE, quantity=2, unit_price=Money("EUR", MAX_UNITS))
    order.given().when(replace(PLACE, lines=(dear,))).refused(
        "ORDER_TOTAL_OVERFLOW", total=f"{2 * MAX_UNITS} units of EUR"
    )


def test_the_largest_total_that_fits_is_accepted() -> None:
    dear = replace(LINE, quantity=1, unit_price=Money("EUR", MAX_UNITS, 999_999_999))
    (placed,) = DECIDER.decide(replace(PLACE, lines=(dear,)), {"s": ORDER.initial}, NOW)["s"]
    assert placed.total == dear.unit_price
