"""Rules of purchase orders: approval, deliveries in parts, and reorder terms."""

from datetime import timedelta
from typing import Any

import pytest

from command_server.contexts.inventory.domain.messages import (
    DiscontinueProduct,
    ReorderTerms,
)
from command_server.contexts.inventory.domain.purchase_messages import (
    ApprovePurchaseOrder,
    CancelPurchaseOrder,
    ClosePurchaseOrder,
    PurchaseLine,
    RaisePurchaseOrder,
    SendToSupplier,
    SetReorderTerms,
)
from command_server.contexts.inventory.domain.stock import make_stock_id
from command_server.kernel.money import MAX_UNITS, Money
from diptych_testing.scenario import NOW
from diptych_testing.world import World, names_of
from tests.support.builders.purchasing import (
    APPROVE,
    DAY,
    LARGE,
    OTHER_SKU,
    SEND,
    get_order,
    goods,
    make_market,
    make_sent_order,
    order,
)
from tests.support.builders.warehouse import (
    ELSEWHERE,
    SKU,
    WAREHOUSE,
    get_levels,
    make_warehouse,
    receive,
    reserve,
)

CLOSE, CANCEL = ClosePurchaseOrder("p-1", "the rest is late"), CancelPurchaseOrder("p-1", "too dear")
TERMS = ReorderTerms("tea-house", 50, Money("EUR", 2))
P1 = {"purchase_order_id": "p-1"}


def test_an_order_up_to_a_sum_needs_no_approval() -> None:
    world = make_market()
    (raised,) = world.execute(order(price=Money("EUR", 400)))
    assert (raised.total, raised.needs_approval) == (Money("EUR", 10_000), False)
    world.assert_unchanged(order(price=Money("EUR", 400), caller="bob"))
    world.assert_unchanged(APPROVE)
    world.assert_rejected(order(), "PURCHASE_ORDER_EXISTS", **P1)
    world.execute(SEND)
    world.assert_unchanged(SEND)
    world.assert_rejected(SendToSupplier("p-1", "2199-01-01"), "PURCHASE_ORDER_ALREADY_SENT", **P1)


def test_a_larger_order_is_approved_by_another_person() -> None:
    world = make_market()
    world.execute(LARGE)
    world.assert_rejected(SEND, "PURCHASE_ORDER_NOT_APPROVED", **P1)
    world.assert_rejected(ApprovePurchaseOrder("p-1", caller="ada"), "PURCHASE_ORDER_SAME_CALLER", **P1)
    behind_a_service = ApprovePurchaseOrder("p-1", caller="app", persons=frozenset(("app", "ada")))
    world.assert_rejected(behind_a_service, "PURCHASE_ORDER_SAME_CALLER", **P1)
    (approved,) = world.execute(APPROVE)
    assert approved.approved_by == "bob"
    world.assert_unchanged(APPROVE)


def test_goods_arrive_in_parts_and_raise_the_stock_by_the_same_command() -> None:
    world = make_sent_order()
    events = names_of(world.execute(goods("n-1", (SKU, 12))))
    assert {"GoodsReceived", "StockReceived", "DeliveryReceived", "WarehouseStocked"} <= set(events)
    assert (get_levels(world), get_order(world).received) == ((12, 0, 0), (12, 0))
    world.execute(goods("n-2", (SKU, 8), (OTHER_SKU, 5)))
    assert (get_levels(world), get_order(world).status.name) == ((20, 0, 0), "RECEIVED")
    world.execute(CLOSE)
    world.assert_unchanged(CLOSE)


def test_a_delivery_note_counts_once_for_each_sku() -> None:
    world = make_sent_order()
    world.execute(goods("n-1", (SKU, 12)))
    world.assert_unchanged(goods("n-1", (SKU, 12)))
    world.assert_rejected(goods("n-1", (SKU, 13)), "DELIVERY_ALREADY_RECEIVED", quantity="12")
    (received, *_) = world.execute(goods("n-1", (SKU, 12), (OTHER_SKU, 5)))
    assert [line.sku for line in received.lines] == [OTHER_SKU]
    assert get_levels(world) == (12, 0, 0)
    world.execute(CLOSE)
    world.assert_unchanged(goods("n-1", (SKU, 12)))


def test_a_tenth_more_than_ordered_is_accepted() -> None:
    world = make_sent_order()
    world.execute(goods("n-1", (SKU, 20)))
    refused = {"sku": SKU, "received": "23", "most": "22"}
    world.assert_rejected(goods("n-2", (SKU, 3)), "PURCHASE_ORDER_OVERDELIVERED", **refused)
    world.execute(goods("n-2", (SKU, 2)))
    refused = {"sku": OTHER_SKU, "received": "6", "most": "5"}
    world.assert_rejected(goods("n-3", (OTHER_SKU, 6)), "PURCHASE_ORDER_OVERDELIVERED", **refused)
    assert get_levels(world) == (22, 0, 0)


def test_an_order_is_cancelled_before_goods_arrive_and_closed_after() -> None:
    world = make_sent_order()
    world.assert_rejected(CLOSE, "PURCHASE_ORDER_NOTHING_RECEIVED", **P1)
    world.execute(goods("n-1", (SKU, 1)))
    world.assert_rejected(CANCEL, "PURCHASE_ORDER_PARTLY_RECEIVED", **P1)
    world.execute(CLOSE)
    for command in (goods("n-2", (SKU, 1)), CANCEL, SEND):
        world.assert_rejected(command, "PURCHASE_ORDER_ALREADY_CLOSED", **P1)
    world = make_sent_order()
    world.execute(CANCEL)
    world.assert_unchanged(CANCEL)
    for refused in (goods("n-2", (SKU, 1)), APPROVE, CLOSE):
        world.assert_rejected(refused, "PURCHASE_ORDER_ALREADY_CANCELLED", **P1)


def test_goods_of_an_order_that_was_not_sent_are_refused() -> None:
    world = make_market()
    world.assert_rejected(goods("n-1", (SKU, 1)), "PURCHASE_ORDER_NOT_FOUND", **P1)
    world.execute(order())
    world.assert_rejected(goods("n-1", (SKU, 1)), "PURCHASE_ORDER_NOT_SENT", **P1)
    world.assert_rejected(CLOSE, "PURCHASE_ORDER_NOT_SENT", **P1)


def raise_lines(*lines: PurchaseLine) -> RaisePurchaseOrder:
    return RaisePurchaseOrder("p-1", "tea-house", WAREHOUSE, lines)


EUR, USD = Money("EUR", 1), Money("USD", 1)
BAD_ORDERS: dict[str, tuple[Any, str]] = {
    "mixed currencies": (
        raise_lines(PurchaseLine(SKU, 1, EUR), PurchaseLine(OTHER_SKU, 1, USD)),
        "PURCHASE_ORDER_CURRENCY_MIXED",
    ),
    "a negative price": (order(price=Money("EUR", -1)), "FIELD_INVALID"),
    "no lines": (order(lines=()), "FIELD_INVALID"),
    "a negative quantity": (order(lines=((SKU, -1),)), "FIELD_INVALID"),
    "a total that is too large": (order(price=Money("EUR", 5 * 10**10)), "PURCHASE_ORDER_TOTAL_TOO_LARGE"),
    "a total of more than 64 bits": (
        raise_lines(*(PurchaseLine(SKU + str(n), 10**6, Money("EUR", 10**12 - 1)) for n in range(20))),
        "PURCHASE_ORDER_TOTAL_TOO_LARGE",
    ),
    "a price of more than 64 bits": (order(price=Money("EUR", MAX_UNITS)), "FIELD_INVALID"),
    "a repeated sku": (order(lines=((SKU, 1), (SKU, 2))), "PURCHASE_ORDER_LINE_REPEATED"),
    "an unknown product": (order(lines=((SKU, 1), ("coffee", 2))), "PRODUCT_NOT_FOUND"),
}


@pytest.mark.parametrize(("command", "reason"), BAD_ORDERS.values(), ids=BAD_ORDERS)
def test_a_bad_order_is_refused(command: Any, reason: str) -> None:
    make_market().assert_rejected(command, reason)


YESTERDAY = (NOW - timedelta(days=1)).date().isoformat()
BAD_COMMANDS: dict[str, tuple[Any, str]] = {
    "an unknown line": (goods("n-1", (SKU, 1), ("coffee", 1)), "PURCHASE_ORDER_LINE_NOT_FOUND"),
    "a repeated line": (goods("n-1", (SKU, 1), (SKU, 2)), "PURCHASE_ORDER_LINE_REPEATED"),
    "a hidden character": (goods("n\u202e1", (SKU, 1)), "TEXT_CHARACTER_FORBIDDEN"),
    "a hidden character in a reason": (CancelPurchaseOrder("p-1", "no\u200b"), "TEXT_CHARACTER_FORBIDDEN"),
    "another order's id": (goods("n-1", (SKU, 1), id_="p-2"), "PURCHASE_ORDER_NOT_FOUND"),
    "a day that is over": (SendToSupplier("p-2", YESTERDAY), "PURCHASE_ORDER_DAY_PAST"),
    "no day": (SendToSupplier("p-2", "2199-02-30"), "FIELD_INVALID"),
    "a day that is missing in this year": (SendToSupplier("p-2", "2199-02-29"), "PURCHASE_ORDER_DAY_INVALID"),
}


@pytest.mark.parametrize(("command", "reason"), BAD_COMMANDS.values(), ids=BAD_COMMANDS)
def test_a_bad_command_on_an_order_is_refused(command: Any, reason: str) -> None:
    world = make_sent_order()
    if isinstance(command, SendToSupplier):
        world.execute(order("p-2"))
    world.assert_rejected(command, reason)


def test_a_discontinued_product_is_neither_ordered_nor_received() -> None:
    world = make_sent_order()
    world.execute(DiscontinueProduct(SKU))
    world.assert_rejected(order("p-2"), "PRODUCT_DISCONTINUED", sku=SKU)
    world.assert_rejected(goods("n-1", (SKU, 1), (OTHER_SKU, 1)), "PRODUCT_DISCONTINUED", sku=SKU)
    world.execute(goods("n-1", (OTHER_SKU, 1)), CLOSE)


def alerts_of(world: World) -> list[tuple[str, ReorderTerms | None]]:
    raised = [event for _, event in world.history if type(event).__name__ == "ReorderAlertRaised"]
    return [(alert.purchase_order_id, alert.terms) for alert in raised]


def test_each_alert_of_a_stock_with_terms_names_an_order_of_its_own() -> None:
    world = make_warehouse(on_hand=10)
    world.execute(SetReorderTerms(SKU, WAREHOUSE, TERMS))
    world.assert_unchanged(SetReorderTerms(SKU, WAREHOUSE, TERMS))
    world.execute(reserve("r-1", 10), receive(1, "n-2"), reserve("r-2", 1), receive(1, "n-3"))
    world.execute(SetReorderTerms(SKU, WAREHOUSE, None), reserve("r-3", 1))
    stock_id = make_stock_id(SKU, WAREHOUSE)
    named = [(f"reorder-{stock_id}-{number}", TERMS) for number in (1, 2)]
    assert alerts_of(world) == [*named, ("", None)]
    world.assert_snapshots_decode()


def test_terms_are_refused_if_no_order_could_have_them() -> None:
    world = make_warehouse(on_hand=1)
    world.assert_rejected(SetReorderTerms(SKU, ELSEWHERE, TERMS), "STOCK_NOT_FOUND", warehouse_id=ELSEWHERE)
    dear = ReorderTerms("tea-house", 10**6, Money("EUR", 10**12 - 1))
    world.assert_rejected(SetReorderTerms(SKU, WAREHOUSE, dear), "PURCHASE_ORDER_TOTAL_TOO_LARGE")


def test_the_day_of_a_delivery_is_a_day_in_utc() -> None:
    world = make_market()
    world.execute(order(), SendToSupplier("p-1", NOW.date().isoformat()))
    assert get_order(world).expected_on < DAY
