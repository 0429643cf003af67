"""Rules of inventory: products, deliveries, counts and transfers."""

import pytest

from command_server.contexts.inventory.domain import stock
from command_server.contexts.inventory.domain.messages import (
    AdjustStock,
    CompleteTransfer,
    DiscontinueProduct,
    ReceiptReason,
    ReceiveStock,
    RegisterProduct,
    SetReorderPoint,
    TransferStock,
)
from command_server.contexts.inventory.domain.product import MAX_WAREHOUSES
from diptych_testing.world import names_of
from tests.support.builders.warehouse import (
    ELSEWHERE,
    SKU,
    WAREHOUSE,
    get_levels,
    get_stock,
    make_warehouse,
    receive,
    reserve,
)

SEND = TransferStock("t-1", SKU, WAREHOUSE, ELSEWHERE, 4)


def test_a_sku_is_registered_once() -> None:
    world = make_warehouse()
    world.assert_unchanged(RegisterProduct(SKU, "Green tea", 0))
    world.assert_rejected(RegisterProduct(SKU, "Black tea", 0), "PRODUCT_EXISTS", sku=SKU)


def test_a_delivery_counts_once() -> None:
    world = make_warehouse(on_hand=5)
    world.assert_unchanged(receive(5))
    world.assert_rejected(receive(6), "DELIVERY_ALREADY_RECEIVED", quantity="5")
    assert get_levels(world) == (5, 0, 0)
    world.execute(receive(5, "n-2"), receive(5, warehouse=ELSEWHERE))
    assert (get_levels(world), get_levels(world, ELSEWHERE)) == ((10, 0, 0), (5, 0, 0))


def test_deliveries_whose_documents_have_line_ends_are_distinct() -> None:
    world = make_warehouse()
    documents = [
        (ReceiptReason.OPENING, f"1\n{SKU}"),
        (ReceiptReason.OPENING, "1"),
        (ReceiptReason.RETURN, "1"),
    ]
    for reason, note in documents:
        delivery = ReceiveStock(SKU, WAREHOUSE, 5, reason, note)
        assert world.execute(delivery)
        world.assert_unchanged(delivery)
    assert get_levels(world)[0] == 5 * len(documents)


def test_an_unregistered_product_is_neither_received_nor_transferred() -> None:
    world = make_warehouse()
    world.assert_rejected(receive(1, sku="coffee"), "PRODUCT_NOT_FOUND", sku="coffee")
    world.assert_rejected(
        TransferStock("t-1", "coffee", WAREHOUSE, ELSEWHERE, 1), "PRODUCT_NOT_FOUND", sku="coffee"
    )


def test_a_stock_has_a_maximum_size(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 10**9  # the largest count, since only millions of deliveries reach the actual maximum
    monkeypatch.setattr(stock, "MAX_PIECES", most)
    world = make_warehouse(on_hand=1)
    world.execute(AdjustStock(SKU, WAREHOUSE, most, "counted"))
    world.assert_rejected(receive(1, "n-2"), "STOCK_TOO_LARGE")
    world.execute(receive(1, warehouse=ELSEWHERE))
    world.assert_rejected(TransferStock("t-1", SKU, ELSEWHERE, WAREHOUSE, 1), "STOCK_TOO_LARGE")


def test_a_product_has_a_maximum_of_warehouses() -> None:
    world = make_warehouse(on_hand=5)
    world.execute(*(receive(1, warehouse=f"w-{number:03}") for number in range(MAX_WAREHOUSES - 1)))
    facts = {"sku": SKU, "most": str(MAX_WAREHOUSES)}
    world.assert_rejected(receive(1, warehouse="one-more"), "PRODUCT_TOO_MANY_WAREHOUSES", **facts)
    to_one_more = TransferStock("t-1", SKU, WAREHOUSE, "one-more", 1)
    world.assert_rejected(to_one_more, "PRODUCT_TOO_MANY_WAREHOUSES", **facts)
    world.execute(receive(1, "n-2"), receive(1, "n-2", warehouse="w-007"))
    assert get_levels(world, "w-007") == (2, 0, 0)


def test_a_count_cannot_fall_below_the_reserved_quantity() -> None:
    world = make_warehouse(on_hand=5)
    world.execute(reserve("r-1", 3))
    world.assert_unchanged(AdjustStock(SKU, WAREHOUSE, 5, "counted"))
    (adjusted, *_) = world.execute(AdjustStock(SKU, WAREHOUSE, 4, "one broken"))
    assert (adjusted.difference, get_levels(world)) == (-1, (4, 3, 0))
    world.assert_rejected(AdjustStock(SKU, WAREHOUSE, 2, "lost"), "STOCK_RESERVED", counted="2", reserved="3")
    world.assert_rejected(AdjustStock(SKU, ELSEWHERE, 2, "found"), "STOCK_NOT_FOUND", warehouse_id=ELSEWHERE)


def test_a_transfer_is_in_transit_until_it_is_completed() -> None:
    world = make_warehouse(on_hand=10)
    world.execute(SEND)
    assert (get_levels(world), get_levels(world, ELSEWHERE)) == ((6, 0, 0), (0, 0, 4))
    world.assert_unchanged(SEND)
    world.assert_rejected(
        TransferStock("t-1", SKU, WAREHOUSE, ELSEWHERE, 5), "TRANSFER_EXISTS", transfer_id="t-1"
    )
    world.execute(CompleteTransfer("t-1"))
    assert get_levels(world, ELSEWHERE) == (4, 0, 0)
    world.assert_unchanged(CompleteTransfer("t-1"))
    world.assert_unchanged(SEND)
    world.assert_rejected(CompleteTransfer("t-2"), "TRANSFER_NOT_FOUND", transfer_id="t-2")


def test_a_transfer_needs_available_stock_and_two_warehouses() -> None:
    world = make_warehouse(on_hand=5)
    world.execute(reserve("r-1", 2))
    world.assert_rejected(SEND, "STOCK_INSUFFICIENT", requested="4", available="3")
    world.assert_rejected(
        TransferStock("t-1", SKU, WAREHOUSE, WAREHOUSE, 1), "TRANSFER_WAREHOUSE_SAME", warehouse_id=WAREHOUSE
    )


def test_an_alert_is_raised_once_for_each_crossing() -> None:
    world = make_warehouse(on_hand=10, reorder_point=5)
    assert names_of(world.execute(reserve("r-1", 5))) == [
        "ReservationMade",
        "StockReserved",
        "ReorderAlertRaised",
    ]
    assert names_of(world.execute(reserve("r-2", 1))) == ["ReservationMade", "StockReserved"]
    assert names_of(world.execute(receive(1, "n-2"))) == ["StockReceived", "DeliveryReceived"]
    assert "ReorderAlertCleared" in names_of(world.execute(receive(1, "n-3")))
    assert get_stock(world).available == 6


def test_a_first_delivery_that_is_too_small_raises_an_alert() -> None:
    world = make_warehouse(reorder_point=5)
    assert "ReorderAlertRaised" in names_of(world.execute(receive(5)))
    assert "ReorderAlertRaised" not in names_of(world.execute(receive(6, warehouse=ELSEWHERE)))


def test_each_warehouse_has_its_own_reorder_point() -> None:
    world = make_warehouse(on_hand=10)
    world.execute(receive(10, warehouse=ELSEWHERE))
    world.assert_unchanged(SetReorderPoint(SKU, WAREHOUSE, 0))
    assert names_of(world.execute(SetReorderPoint(SKU, WAREHOUSE, 10))) == [
        "ReorderPointSet",
        "ReorderAlertRaised",
    ]
    assert names_of(world.execute(SetReorderPoint(SKU, WAREHOUSE, 9))) == [
        "ReorderPointSet",
        "ReorderAlertCleared",
    ]
    assert get_stock(world, warehouse=ELSEWHERE).reorder_point == 0
    world.assert_rejected(SetReorderPoint(SKU, "w-3", 1), "STOCK_NOT_FOUND", warehouse_id="w-3")


def test_a_discontinued_product_is_sold_off_without_alerts() -> None:
    world = make_warehouse(on_hand=5, reorder_point=5)
    world.execute(receive(7, warehouse=ELSEWHERE))
    ended = world.execute(DiscontinueProduct(SKU))
    assert names_of(ended) == [
        "ProductDiscontinued",
        "StockDiscontinued",
        "ReorderAlertCleared",
        "StockDiscontinued",
    ]
    world.assert_unchanged(DiscontinueProduct(SKU))
    world.assert_unchanged(receive(5))
    world.assert_rejected(receive(1, "n-2"), "PRODUCT_DISCONTINUED", sku=SKU)
    assert names_of(world.execute(reserve("r-1", 1))) == ["ReservationMade", "StockReserved"]
    moved = world.execute(TransferStock("t-1", SKU, WAREHOUSE, "w-3", 4))
    assert "ReorderAlertRaised" not in names_of(moved)
    world.assert_rejected(DiscontinueProduct("coffee"), "PRODUCT_NOT_FOUND", sku="coffee")


def test_a_product_lists_each_of_its_warehouses_once() -> None:
    world = make_warehouse(on_hand=9)
    world.execute(receive(1, "n-2"), SEND, receive(1, "n-3", warehouse=ELSEWHERE))
    stocked = [event.warehouse_id for _, event in world.history if type(event).__name__ == "WarehouseStocked"]
    assert stocked == [WAREHOUSE, ELSEWHERE]
    world.assert_snapshots_decode()
