"""Rules of ordering: lines, their total, and the addresses of shipping groups."""

from dataclasses import replace

import pytest

from command_server.contexts.ordering.domain.contents import MAX_LINES, TOTAL_LIMIT
from command_server.contexts.ordering.domain.messages import (
    AddOrderLine,
    ChangeShippingAddress,
    OrderLine,
    OrderLineAdded,
    OrderLineRemoved,
    OrderPlaced,
    PersonalData,
    PlacedGroup,
    PlaceOrder,
    RemoveOrderLine,
    ShippingAddressChanged,
    ShippingGroup,
)
from command_server.contexts.ordering.domain.order import DECIDER, ORDER, Order, evolve
from command_server.kernel.money import MAX_UNITS, Money
from diptych_testing.scenario import NOW, Scenario
from tests.support.builders.orders import ADDRESS, ELSEWHERE, GROUP, LINE, OWN_PRICES, PLACE, PLACED, SECOND

THIRD = OrderLine("sku-3", "A third thing", 2, Money("EUR", 0, 500_000_000))
OTHER = ShippingGroup("gift", (LINE,), ELSEWHERE, "w-2")
SPLIT = replace(PLACE, shipping_groups=(GROUP, OTHER))
TWO_GROUPS = OrderPlaced(
    "o-1",
    "c-1",
    (
        PlacedGroup("main", (LINE, SECOND), "w-1", PersonalData("c-1", ADDRESS)),
        PlacedGroup("gift", (LINE,), "w-2", PersonalData("c-1", ELSEWHERE)),
    ),
    Money("EUR", 64, 940_000_000),
    "a-1",
    NOW,
)
ADDED = OrderLineAdded("o-1", "main", THIRD, Money("EUR", 35, 970_000_000), NOW)
REMOVED = OrderLineRemoved("o-1", "main", "sku-1", Money("EUR", 5), NOW)
SENT = ShippingAddressChanged("o-1", "main", PersonalData("c-1", ELSEWHERE), NOW)

order = Scenario(ORDER, DECIDER)


def of_lines(*lines: OrderLine) -> PlaceOrder:
    return replace(PLACE, shipping_groups=(replace(GROUP, lines=lines),))


def test_an_order_of_several_groups_is_summed_over_all_of_them() -> None:
    order.given().when(SPLIT).then(TWO_GROUPS)


def test_a_line_is_added_to_the_only_group_and_to_the_sum() -> None:
    order.given(PLACED).when(AddOrderLine("o-1", "", THIRD, scopes=OWN_PRICES)).then(ADDED)
    order.given(PLACED).when(AddOrderLine("o-1", "main", THIRD, scopes=OWN_PRICES)).then(ADDED)


def test_adding_an_identical_line_changes_nothing() -> None:
    order.given(PLACED, ADDED).when(AddOrderLine("o-1", "", THIRD, scopes=OWN_PRICES)).then()


def test_another_line_of_the_same_article_is_rejected() -> None:
    more = replace(LINE, quantity=4)
    order.given(PLACED).when(AddOrderLine("o-1", "", more, scopes=OWN_PRICES)).then_rejected(
        "ORDER_LINE_EXISTS", sku="sku-1"
    )


def test_the_same_article_may_be_in_two_groups() -> None:
    added = OrderLineAdded("o-1", "gift", SECOND, Money("EUR", 69, 940_000_000), NOW)
    order.given(TWO_GROUPS).when(AddOrderLine("o-1", "gift", SECOND, scopes=OWN_PRICES)).then(added)


@pytest.mark.parametrize("group", ["", "nowhere"])
def test_an_unnamed_or_unknown_group_is_not_found(group: str) -> None:
    for command in (
        AddOrderLine("o-1", group, THIRD, scopes=OWN_PRICES),
        RemoveOrderLine("o-1", group, "sku-1"),
        ChangeShippingAddress("o-1", group, ADDRESS),
    ):
        order.given(TWO_GROUPS).when(command).then_rejected(
            "SHIPPING_GROUP_NOT_FOUND", shipping_group_id=group
        )


def test_a_line_is_removed_from_its_group_and_from_the_sum() -> None:
    order.given(PLACED).when(RemoveOrderLine("o-1", "", "sku-1")).then(REMOVED)
    remove = RemoveOrderLine("o-1", "main", "sku-1")
    removed = replace(REMOVED, total=Money("EUR", 34, 970_000_000))
    order.given(TWO_GROUPS).when(remove).then(removed)


def test_an_unknown_line_cannot_be_removed() -> None:
    remove = RemoveOrderLine("o-1", "", "sku-1")
    order.given(PLACED, REMOVED).when(remove).then_rejected("ORDER_LINE_NOT_FOUND", sku="sku-1")


def test_the_last_line_of_a_group_stays() -> None:
    last = RemoveOrderLine("o-1", "", "sku-2")
    order.given(PLACED, REMOVED).when(last).then_rejected("ORDER_LINE_LAST", sku="sku-2")


def test_a_removed_line_can_be_added_again() -> None:
    again = OrderLineAdded("o-1", "main", LINE, Money("EUR", 34, 970_000_000), NOW)
    order.given(PLACED, REMOVED).when(AddOrderLine("o-1", "", LINE, scopes=OWN_PRICES)).then(again)


def test_the_address_of_a_group_is_changed() -> None:
    order.given(PLACED).when(ChangeShippingAddress("o-1", "", ELSEWHERE)).then(SENT)


def test_changing_an_address_to_the_same_address_changes_nothing() -> None:
    order.given(PLACED).when(ChangeShippingAddress("o-1", "", ADDRESS)).then()
    order.given(PLACED, SENT).when(ChangeShippingAddress("o-1", "", ELSEWHERE)).then()


def test_an_edit_leaves_the_other_groups_as_they_are() -> None:
    before = evolve(Order(), TWO_GROUPS)
    for event in (ADDED, REMOVED, SENT):
        assert evolve(before, event).contents.get_group("gift") == before.contents.get_group("gift")


def test_lines_in_two_currencies_are_rejected() -> None:
    dollars = replace(SECOND, unit_price=Money("USD", 1))
    order.given().when(of_lines(LINE, dollars)).then_rejected(
        "ORDER_CURRENCY_MIXED", currencies="EUR and USD"
    )
    added = AddOrderLine("o-1", "", replace(THIRD, unit_price=Money("USD", 1)), scopes=OWN_PRICES)
    order.given(PLACED).when(added).then_rejected("ORDER_CURRENCY_MIXED", currencies="EUR and USD")


def test_two_lines_of_one_article_in_one_group_are_rejected() -> None:
    order.given().when(of_lines(LINE, SECOND, LINE)).then_rejected("ORDER_LINE_REPEATED", sku="sku-1")


def test_two_groups_of_one_id_are_rejected() -> None:
    twice = replace(PLACE, shipping_groups=(GROUP, replace(OTHER, shipping_group_id="main")))
    order.given().when(twice).then_rejected("SHIPPING_GROUP_REPEATED", shipping_group_id="main")


def test_the_number_of_lines_in_all_groups_is_limited() -> None:
    many = tuple(OrderLine(f"sku-{n}", "A thing", 1, Money("EUR", 1)) for n in range(MAX_LINES))
    full = replace(PLACE, shipping_groups=(replace(GROUP, lines=many),))
    (placed,) = DECIDER.decide(full, {"s": ORDER.initial}, NOW)["s"]
    over = {"lines": str(MAX_LINES + 1), "most": str(MAX_LINES)}
    order.given(placed).when(
        AddOrderLine("o-1", "", replace(THIRD, sku="sku-x"), scopes=OWN_PRICES)
    ).then_rejected("ORDER_TOO_MANY_LINES", **over)
    split = replace(full, shipping_groups=(*full.shipping_groups, OTHER))
    order.given().when(split).then_rejected("ORDER_TOO_MANY_LINES", **over)


@pytest.mark.parametrize(("units", "quantity"), [(TOTAL_LIMIT, 1), (TOTAL_LIMIT // 2, 2), (MAX_UNITS, 2)])
def test_a_total_that_is_too_large_is_rejected(units: int, quantity: int) -> None:
    expensive = replace(LINE, quantity=quantity, unit_price=Money("EUR", units))
    order.given().when(of_lines(expensive)).then_rejected("ORDER_TOTAL_TOO_LARGE", below=str(TOTAL_LIMIT))


def test_the_largest_total_is_accepted() -> None:
    expensive = replace(LINE, quantity=1, unit_price=Money("EUR", TOTAL_LIMIT - 1, 999_999_999))
    (placed,) = DECIDER.decide(of_lines(expensive), {"s": ORDER.initial}, NOW)["s"]
    assert placed.total == expensive.unit_price
