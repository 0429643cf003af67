"""Queries of inventory: products, stock, reorder alerts, stock movements, reservations, purchase orders."""

import asyncio

from diptych.inventory.v1 import query_service_pb2 as protocol
from diptych.inventory.v1.types_pb2 import (
    ExpectedStock,
    Product,
    PurchaseOrder,
    ReorderAlert,
    Reservation,
    Stock,
    StockLedger,
    StockMovement,
)

from contracts.view_layout import View
from query_server import list_pages, watches
from query_server.fresh_reader import FreshReader
from query_server.merged_history_pages import MergedPage
from query_server.not_found import NotFound
from query_server.service import Query, QueryContext, WatchQuery
from query_server.view_reader import Window
from query_server.watches import Watch, WatchResponses
from query_server.wire_format import encode_view

PRODUCTS, STOCKS, RESERVATIONS = View.of(Product), View.of(Stock), View.of(Reservation)
ALERTS, LEDGERS, ORDERS = View.of(ReorderAlert), View.of(StockLedger), View.of(PurchaseOrder)
PRODUCT_NOT_FOUND = NotFound("inventory", "PRODUCT_NOT_FOUND", ("sku",))
STOCK_NOT_FOUND = NotFound("inventory", "STOCK_NOT_FOUND", ("sku", "warehouse_id"))
RESERVATION_NOT_FOUND = NotFound("inventory", "RESERVATION_NOT_FOUND", ("reservation_id",))
ORDER_NOT_FOUND = NotFound("inventory", "PURCHASE_ORDER_NOT_FOUND", ("purchase_order_id",))
MAX_WAREHOUSES = 1_000
"""Warehouses of one SKU that a response includes. The rules allow 200; before that, there was no limit."""


async def get_product(products: FreshReader, request: protocol.GetProductRequest) -> bytes:
    views = await list_pages.read_all(products, products.view.index("sku", request.sku), 1)
    if not views:
        raise PRODUCT_NOT_FOUND.error(request.sku)
    return encode_view(views[0])


async def get_stock(stocks: FreshReader, request: protocol.GetStockRequest) -> bytes:
    """Respond with a SKU's stock in each warehouse, the totals, and what purchase orders lack."""
    (orders,) = stocks.others
    views, expected = await asyncio.gather(
        list_pages.read_all(stocks, stocks.view.index("sku", request.sku), MAX_WAREHOUSES),
        orders.get_counters(orders.view.counters("expected", request.sku)),
    )
    if not views and not expected:
        raise STOCK_NOT_FOUND.error(request.sku, "")
    by_warehouse = sorted(map(Stock.FromString, views), key=lambda stock: stock.warehouse_id)
    response = protocol.GetStockResponse(
        stocks=by_warehouse,
        on_hand=sum(stock.on_hand for stock in by_warehouse),
        reserved=sum(stock.reserved for stock in by_warehouse),
        available=sum(stock.available for stock in by_warehouse),
        in_transit=sum(stock.in_transit for stock in by_warehouse),
        expected=[_build_expected(name, quantity) for name, quantity in sorted(expected.items())],
    )
    return response.SerializeToString()


def _build_expected(counter: str, quantity: int) -> ExpectedStock:
    day, _, warehouse_id = counter.partition("/")
    return ExpectedStock(day=day, warehouse_id=warehouse_id, quantity=quantity)


async def list_stock(stocks: FreshReader, request: protocol.ListStockRequest) -> bytes:
    window = Window(_select_index(stocks.view, request.warehouse_id, request.low))
    return (await list_pages.read_page(stocks, window, request)).encode()


def _select_index(view: View, warehouse_id: str, low: bool) -> str:
    match warehouse_id, low:
        case "", False:
            return view.index("all")
        case "", True:
            return view.index("low")
        case _, False:
            return view.index("warehouse", warehouse_id)
        case _:
            return view.index("low_warehouse", warehouse_id)


async def list_reorder_alerts(alerts: FreshReader, request: protocol.ListReorderAlertsRequest) -> bytes:
    """Respond with a page of the alerts that are raised now."""
    values = ("raised_warehouse", request.warehouse_id) if request.warehouse_id else ("raised",)
    return (await list_pages.read_page(alerts, Window(alerts.view.index(*values)), request)).encode()


async def get_reservation(reservations: FreshReader, request: protocol.GetReservationRequest) -> bytes:
    return encode_view(await reservations.get(request.reservation_id, RESERVATION_NOT_FOUND))


async def get_purchase_order(orders: FreshReader, request: protocol.GetPurchaseOrderRequest) -> bytes:
    return encode_view(await orders.get(request.purchase_order_id, ORDER_NOT_FOUND))


async def list_purchase_orders(orders: FreshReader, request: protocol.ListPurchaseOrdersRequest) -> bytes:
    values = [("supplier", request.supplier_id)] if request.supplier_id else []
    if request.state:
        values.append(("state", PurchaseOrder.State.Name(request.state)))
    name = "_".join(name for name, _ in values) or "all"
    window = Window(orders.view.index(name, *(value for _, value in values)))
    return (await list_pages.read_page(orders, window, request)).encode()


def watch_reorder_alerts(watch: Watch, _: protocol.WatchReorderAlertsRequest) -> WatchResponses:
    """Yield each alert whenever it is raised or cleared."""
    return watches.watch_feed(watch, watch.view.change_feed("ever"), watch.view.index("ever"))


async def get_stock_movements(ledgers: FreshReader, request: protocol.GetStockMovementsRequest) -> bytes:
    """Respond with a page of the movements of a SKU, in one warehouse or in all, merged by time."""
    index = ledgers.view.index("sku", request.sku)
    page = MergedPage.of(ledgers, f"{index} {request.warehouse_id}", request)
    views = map(StockLedger.FromString, await list_pages.read_all(ledgers, index, MAX_WAREHOUSES))
    last = {view.stock_id: view.version for view in views if request.warehouse_id in ("", view.warehouse_id)}
    if not last:
        raise STOCK_NOT_FOUND.error(request.sku, request.warehouse_id)
    firsts = await ledgers.read(*(("HGET", ledgers.view.key(stock_id), "history_from") for stock_id in last))
    versions = {
        stock_id: range(int(first or 1), version + 1)
        for (stock_id, version), first in zip(last.items(), firsts, strict=True)
    }
    return (await page.read(ledgers.views, StockMovement, versions, _is_movement)).encode()


def _is_movement(entry: StockMovement) -> bool:
    return entry.kind != StockMovement.KIND_UNSPECIFIED


CONTEXT = QueryContext(
    protocol.DESCRIPTOR.services_by_name["QueryService"],
    {
        "GetProduct": Query(PRODUCTS, get_product),
        "GetStock": Query(STOCKS, get_stock, others=(ORDERS,)),
        "ListStock": Query(STOCKS, list_stock),
        "GetReservation": Query(RESERVATIONS, get_reservation),
        "ListReorderAlerts": Query(ALERTS, list_reorder_alerts),
        "GetStockMovements": Query(LEDGERS, get_stock_movements),
        "GetPurchaseOrder": Query(ORDERS, get_purchase_order),
        "ListPurchaseOrders": Query(ORDERS, list_purchase_orders),
    },
    {"WatchReorderAlerts": WatchQuery(ALERTS, watch_reorder_alerts)},
)
