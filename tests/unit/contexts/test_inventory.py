"""What inventory's rules say of products, deliveries, counts and transfers."""

from command_server.contexts.inventory.domain.messages import (
    AdjustStock,
    CompleteTransfer,
    DiscontinueProduct,
    RegisterProduct,
    SetReorderPoint,
    TransferStock,
)
from command_server.contexts.inventory.domain.stock import MAX_PIECES
from tests.support.builders.warehouse import (
    ELSEWHERE,
    SKU,
    WAREHOUSE,
    levels,
    receive,
    reserve,
    stock,
    world,
)
from tests.support.harness.world import kinds

SEND = TransferStock("t-1", SKU, WAREHOUSE, ELSEWHERE, 4)


def test_a_sku_is_registered_once() -> None:
    made = world()
    made.nothing(RegisterProduct(SKU, "Green tea", 0))
    made.refuses(RegisterProduct(SKU, "Black tea", 0), "PRODUCT_EXISTS", sku=SKU)


def test_a_delivery_counts_once() -> None:
    made = world(on_hand=5)
    made.nothing(receive(5))
    made.refuses(receive(6), "DELIVERY_ALREADY_RECEIVED", quantity="5")
    assert levels(made) == (5, 0, 0)
    made.do(receive(5, "n-2"), receive(5, warehouse=ELSEWHERE))
    assert (levels(made), levels(made, ELSEWHERE)) == ((10, 0, 0), (5, 0, 0))


def test_what_nobody_has_registered_is_not_received() -> None:
    made = world()
    made.refuses(receive(1, sku="coffee"), "PRODUCT_NOT_FOUND", sku="coffee")
    made.refuses(TransferStock("t-1", "coffee", WAREHOUSE, ELSEWHERE, 1), "PRODUCT_NOT_FOUND", sku="coffee")


def test_a_stock_has_a_largest_size() -> None:
    made = world(on_hand=1)
    made.do(AdjustStock(SKU, WAREHOUSE, MAX_PIECES, "counted"))
    made.refuses(receive(1, "n-2"), "STOCK_TOO_LARGE")
    made.do(receive(1, warehouse=ELSEWHERE))
    made.refuses(TransferStock("t-1", SKU, ELSEWHERE, WAREHOUSE, 1), "STOCK_TOO_LARGE")


def test_a_count_corrects_what_is_on_hand_but_not_below_what_is_reserved() -> None:
    made = world(on_hand=5)
    made.do(reserve("r-1", 3))
    made.nothing(AdjustStock(SKU, WAREHOUSE, 5, "counted"))
    (adjusted, *_) = made.do(AdjustStock(SKU, WAREHOUSE, 4, "one broken"))
    assert (adjusted.difference, levels(made)) == (-1, (4, 3, 0))
    made.refuses(AdjustStock(SKU, WAREHOUSE, 2, "lost"), "STOCK_RESERVED", counted="2", reserved="3")
    made.refuses(AdjustStock(SKU, ELSEWHERE, 2, "found"), "STOCK_NOT_FOUND", warehouse_id=ELSEWHERE)


def test_what_is_sent_is_in_transit_until_it_arrives() -> None:
    made = world(on_hand=10)
    made.do(SEND)
    assert (levels(made), levels(made, ELSEWHERE)) == ((6, 0, 0), (0, 0, 4))
    made.nothing(SEND)
    made.refuses(TransferStock("t-1", SKU, WAREHOUSE, ELSEWHERE, 5), "TRANSFER_EXISTS", transfer_id="t-1")
    made.do(CompleteTransfer("t-1"))
    assert levels(made, ELSEWHERE) == (4, 0, 0)
    made.nothing(CompleteTransfer("t-1"))
    made.nothing(SEND)
    made.refuses(CompleteTransfer("t-2"), "TRANSFER_NOT_FOUND", transfer_id="t-2")


def test_only_what_is_available_is_sent_and_only_elsewhere() -> None:
    made = world(on_hand=5)
    made.do(reserve("r-1", 2))
    made.refuses(SEND, "STOCK_INSUFFICIENT", requested="4", available="3")
    made.refuses(
        TransferStock("t-1", SKU, WAREHOUSE, WAREHOUSE, 1), "TRANSFER_WAREHOUSE_SAME", warehouse_id=WAREHOUSE
    )


def test_an_alert_is_raised_once_for_each_crossing() -> None:
    made = world(on_hand=10, reorder_point=5)
    assert kinds(made.do(reserve("r-1", 5))) == ["ReservationMade", "StockReserved", "ReorderAlertRaised"]
    assert kinds(made.do(reserve("r-2", 1))) == ["ReservationMade", "StockReserved"]
    assert kinds(made.do(receive(1, "n-2"))) == ["StockReceived", "DeliveryReceived"]
    assert "ReorderAlertCleared" in kinds(made.do(receive(1, "n-3")))
    assert stock(made).available == 6


def test_a_first_delivery_that_is_too_small_raises_an_alert() -> None:
    made = world(reorder_point=5)
    assert "ReorderAlertRaised" in kinds(made.do(receive(5)))
    assert "ReorderAlertRaised" not in kinds(made.do(receive(6, warehouse=ELSEWHERE)))


def test_a_reorder_point_is_each_warehouses_own() -> None:
    made = world(on_hand=10)
    made.do(receive(10, warehouse=ELSEWHERE))
    made.nothing(SetReorderPoint(SKU, WAREHOUSE, 0))
    assert kinds(made.do(SetReorderPoint(SKU, WAREHOUSE, 10))) == ["ReorderPointSet", "ReorderAlertRaised"]
    assert kinds(made.do(SetReorderPoint(SKU, WAREHOUSE, 9))) == ["ReorderPointSet", "ReorderAlertCleared"]
    assert stock(made, warehouse=ELSEWHERE).reorder_point == 0
    made.refuses(SetReorderPoint(SKU, "w-3", 1), "STOCK_NOT_FOUND", warehouse_id="w-3")


def test_a_discontinued_product_is_sold_off_without_alerts() -> None:
    made = world(on_hand=5, reorder_point=5)
    made.do(receive(7, warehouse=ELSEWHERE))
    ended = made.do(DiscontinueProduct(SKU))
    assert kinds(ended) == [
        "ProductDiscontinued",
        "StockDiscontinued",
        "ReorderAlertCleared",
        "StockDiscontinued",
    ]
    made.nothing(DiscontinueProduct(SKU))
    made.nothing(receive(5))
    made.refuses(receive(1, "n-2"), "PRODUCT_DISCONTINUED", sku=SKU)
    assert kinds(made.do(reserve("r-1", 1))) == ["ReservationMade", "StockReserved"]
    moved = made.do(TransferStock("t-1", SKU, WAREHOUSE, "w-3", 4))
    assert "ReorderAlertRaised" not in kinds(moved)
    made.refuses(DiscontinueProduct("coffee"), "PRODUCT_NOT_FOUND", sku="coffee")


def test_a_product_knows_its_warehouses_once_each() -> None:
    made = world(on_hand=9)
    made.do(receive(1, "n-2"), SEND, receive(1, "n-3", warehouse=ELSEWHERE))
    stocked = [event.warehouse_id for _, event in made.history if type(event).__name__ == "WarehouseStocked"]
    assert stocked == [WAREHOUSE, ELSEWHERE]
    made.reloaded()
