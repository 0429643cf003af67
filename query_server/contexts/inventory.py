"""Queries of inventory: products, stock, reorder alerts, stock movements and reservations."""

import msgspec
from diptych.inventory.v1 import query_service_pb2 as protocol
from diptych.inventory.v1.types_pb2 import (
    Product,
    ReorderAlert,
    Reservation,
    Stock,
    StockLedger,
    StockMovement,
)

from contracts import page_tokens
from contracts.view_layout import View
from query_server import freshness, list_pages, merged_history_pages, watches
from query_server.service import Query, QueryContext, WatchQuery
from query_server.view_reader import ViewReader, Window
from query_server.watches import Watch, WatchResponses
from query_server.wire_format import encode_field
from runtime.grpc.request_tokens import invalid_page_token, read_page_token
from runtime.grpc.rpc_error import RpcError

PRODUCTS, STOCKS, RESERVATIONS = View.of(Product), View.of(Stock), View.of(Reservation)
ALERTS, LEDGERS = View.of(ReorderAlert), View.of(StockLedger)
DEFAULT_PAGE_SIZE = 20
"""Entries per page."""
MAX_WAREHOUSES = 1_000
"""Warehouses of one SKU that a response includes."""


async def get_product(
    products: ViewReader, request: protocol.GetProductRequest, remaining: float | None
) -> bytes:
    await _wait_until_fresh(products, request.at_least_as_fresh, remaining)
    page, _ = await list_pages.read_page(products, Window(PRODUCTS.index("sku", request.sku)), "", 1)
    if not page:
        raise _not_found("PRODUCT_NOT_FOUND", sku=request.sku)
    return encode_field(protocol.GetProductResponse.PRODUCT_FIELD_NUMBER, page[0])


async def get_stock(stocks: ViewReader, request: protocol.GetStockRequest, remaining: float | None) -> bytes:
    """Respond with a SKU's stock in each warehouse, and the totals."""
    await _wait_until_fresh(stocks, request.at_least_as_fresh, remaining)
    window = Window(STOCKS.index("sku", request.sku))
    page, _ = await list_pages.read_page(stocks, window, "", MAX_WAREHOUSES)
    if not page:
        raise _not_found("STOCK_NOT_FOUND", sku=request.sku)
    by_warehouse = sorted(map(Stock.FromString, page), key=lambda stock: stock.warehouse_id)
    response = protocol.GetStockResponse(
        stocks=by_warehouse,
        on_hand=sum(stock.on_hand for stock in by_warehouse),
        reserved=sum(stock.reserved for stock in by_warehouse),
        available=sum(stock.available for stock in by_warehouse),
        in_transit=sum(stock.in_transit for stock in by_warehouse),
    )
    return response.SerializeToString()


async def list_stock(
    stocks: ViewReader, request: protocol.ListStockRequest, remaining: float | None
) -> bytes:
    match request.warehouse_id, request.low:
        case "", False:
            index = STOCKS.index("all")
        case "", True:
            index = STOCKS.index("low")
        case warehouse_id, False:
            index = STOCKS.index("warehouse", warehouse_id)
        case warehouse_id, True:
            index = STOCKS.index("low_warehouse", warehouse_id)
    page, token = await _read_page(stocks, index, request, remaining)
    number = protocol.ListStockResponse.STOCKS_FIELD_NUMBER
    response = protocol.ListStockResponse(next_page_token=token)
    return b"".join(encode_field(number, data) for data in page) + response.SerializeToString()


async def list_reorder_alerts(
    alerts: ViewReader, request: protocol.ListReorderAlertsRequest, remaining: float | None
) -> bytes:
    """Respond with a page of the alerts that are raised now."""
    values = ("raised_warehouse", request.warehouse_id) if request.warehouse_id else ("raised",)
    page, token = await _read_page(alerts, ALERTS.index(*values), request, remaining)
    number = protocol.ListReorderAlertsResponse.ALERTS_FIELD_NUMBER
    response = protocol.ListReorderAlertsResponse(next_page_token=token)
    return b"".join(encode_field(number, data) for data in page) + response.SerializeToString()


async def _read_page(
    views: ViewReader,
    index: str,
    request: protocol.ListStockRequest | protocol.ListReorderAlertsRequest,
    remaining: float | None,
) -> tuple[list[bytes], str]:
    """Return a page of an index, and the token of the next page; empty on the last page."""
    window = Window(index)
    after = read_page_token(str(window), request.page_token)
    await _wait_until_fresh(views, request.at_least_as_fresh, remaining)
    page, last = await list_pages.read_page(views, window, after, request.page_size or DEFAULT_PAGE_SIZE)
    return page, page_tokens.mint(str(window), last) if last else ""


async def get_reservation(
    reservations: ViewReader, request: protocol.GetReservationRequest, remaining: float | None
) -> bytes:
    reservation_id = request.reservation_id
    data = await freshness.read_view(reservations, reservation_id, request.at_least_as_fresh, remaining)
    if not data:
        raise _not_found("RESERVATION_NOT_FOUND", reservation_id=reservation_id)
    return encode_field(protocol.GetReservationResponse.RESERVATION_FIELD_NUMBER, data)


def watch_reorder_alerts(watch: Watch, _: protocol.WatchReorderAlertsRequest) -> WatchResponses:
    """Yield each alert whenever it is raised or cleared."""
    return watches.watch_feed(watch, ALERTS.change_feed("ever"), ALERTS.index("ever"))


async def get_stock_movements(
    views: ViewReader, request: protocol.GetStockMovementsRequest, remaining: float | None
) -> bytes:
    """Respond with a page of the movements of a SKU, in one warehouse or in all, merged by time."""
    list_name = f"{LEDGERS.index('sku', request.sku)} {request.warehouse_id}"
    token = read_page_token(list_name, request.page_token)
    await _wait_until_fresh(views, request.at_least_as_fresh, remaining)
    window = Window(LEDGERS.index("sku", request.sku))
    page, _ = await list_pages.read_page(views, window, "", MAX_WAREHOUSES)
    ledgers = [
        ledger
        for ledger in map(StockLedger.FromString, page)
        if request.warehouse_id in ("", ledger.warehouse_id)
    ]
    if not ledgers:
        raise _not_found("STOCK_NOT_FOUND", sku=request.sku, warehouse_id=request.warehouse_id)
    versions = {ledger.stock_id: ledger.version for ledger in ledgers}
    if token:
        versions = _limit_versions(versions, token)
    size = request.page_size or DEFAULT_PAGE_SIZE
    movements, next_versions = await merged_history_pages.read_page(
        views, StockMovement, versions, size, lambda movement: movement.kind
    )
    next_page_token = ""
    if next_versions:
        next_page_token = page_tokens.mint(list_name, msgspec.json.encode(next_versions).decode())
    response = protocol.GetStockMovementsResponse(movements=movements, next_page_token=next_page_token)
    return response.SerializeToString()


def _limit_versions(versions: dict[str, int], token: str) -> dict[str, int]:
    """Return the versions with which a page begins: those in its token, at most the current ones."""
    try:
        claimed = msgspec.json.decode(token, type=dict[str, int])
    except msgspec.MsgspecError:
        raise invalid_page_token() from None
    return {view_id: min(version, claimed.get(view_id, 0)) for view_id, version in versions.items()}


async def _wait_until_fresh(views: ViewReader, token: str, remaining: float | None) -> None:
    if token:
        await freshness.read(views, token, remaining=remaining)


def _not_found(reason: str, **metadata: str) -> RpcError:
    return RpcError.not_found("inventory", reason, {name: value for name, value in metadata.items() if value})


CONTEXT = QueryContext(
    protocol.DESCRIPTOR.services_by_name["QueryService"],
    {
        "GetProduct": Query(PRODUCTS, get_product),
        "GetStock": Query(STOCKS, get_stock),
        "ListStock": Query(STOCKS, list_stock),
        "GetReservation": Query(RESERVATIONS, get_reservation),
        "ListReorderAlerts": Query(ALERTS, list_reorder_alerts),
        "GetStockMovements": Query(LEDGERS, get_stock_movements),
    },
    {"WatchReorderAlerts": WatchQuery(ALERTS, watch_reorder_alerts)},
)
