"""Queries of inventory: products, stock by sku and warehouse, alerts, ledgers, reservations."""

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
from query_server import freshness, ledger_pages, list_pages, watches
from query_server.service import Query, QueryContext, WatchQuery
from query_server.view_reader import ViewReader, Window
from query_server.watches import Watch, WatchResponses
from query_server.wire_format import field
from runtime.grpc.request_tokens import invalid_page_token, read_page_token
from runtime.grpc.rpc_error import RpcError

PRODUCTS, STOCKS, RESERVATIONS = View.of(Product), View.of(Stock), View.of(Reservation)
ALERTS, LEDGERS = View.of(ReorderAlert), View.of(StockLedger)
PAGE_SIZE = 20
"""Entries on a page where the request does not say."""
WAREHOUSES = 1_000
"""Warehouses of one sku that are shown, at the most."""


async def get_product(
    products: ViewReader, request: protocol.GetProductRequest, remaining: float | None
) -> bytes:
    """Answer with one product."""
    await _fresh(products, request.at_least_as_fresh, remaining)
    found, _ = await list_pages.page(products, Window(PRODUCTS.index("sku", request.sku)), "", 1)
    if not found:
        raise _not_found("PRODUCT_NOT_FOUND", sku=request.sku)
    return field(protocol.GetProductResponse.PRODUCT_FIELD_NUMBER, found[0])


async def get_stock(stocks: ViewReader, request: protocol.GetStockRequest, remaining: float | None) -> bytes:
    """Answer with what there is of a sku."""
    await _fresh(stocks, request.at_least_as_fresh, remaining)
    found, _ = await list_pages.page(stocks, Window(STOCKS.index("sku", request.sku)), "", WAREHOUSES)
    if not found:
        raise _not_found("STOCK_NOT_FOUND", sku=request.sku)
    each = sorted(map(Stock.FromString, found), key=lambda stock: stock.warehouse_id)
    response = protocol.GetStockResponse(
        stocks=each,
        on_hand=sum(stock.on_hand for stock in each),
        reserved=sum(stock.reserved for stock in each),
        available=sum(stock.available for stock in each),
        in_transit=sum(stock.in_transit for stock in each),
    )
    return response.SerializeToString()


async def list_stock(
    stocks: ViewReader, request: protocol.ListStockRequest, remaining: float | None
) -> bytes:
    """Answer with a page of stocks."""
    match request.warehouse_id, request.low:
        case "", False:
            index = STOCKS.index("all")
        case "", True:
            index = STOCKS.index("low")
        case warehouse_id, False:
            index = STOCKS.index("warehouse", warehouse_id)
        case warehouse_id, True:
            index = STOCKS.index("low_warehouse", warehouse_id)
    found, token = await _page(stocks, index, request, remaining)
    number = protocol.ListStockResponse.STOCKS_FIELD_NUMBER
    rest = protocol.ListStockResponse(next_page_token=token)
    return b"".join(field(number, data) for data in found) + rest.SerializeToString()


async def list_reorder_alerts(
    alerts: ViewReader, request: protocol.ListReorderAlertsRequest, remaining: float | None
) -> bytes:
    """Answer with a page of the alerts that stand."""
    where = ("raised_warehouse", request.warehouse_id) if request.warehouse_id else ("raised",)
    found, token = await _page(alerts, ALERTS.index(*where), request, remaining)
    number = protocol.ListReorderAlertsResponse.ALERTS_FIELD_NUMBER
    rest = protocol.ListReorderAlertsResponse(next_page_token=token)
    return b"".join(field(number, data) for data in found) + rest.SerializeToString()


async def _page(
    views: ViewReader,
    index: str,
    request: protocol.ListStockRequest | protocol.ListReorderAlertsRequest,
    remaining: float | None,
) -> tuple[list[bytes], str]:
    """Return a page of an index, and the token of the next."""
    window = Window(index)
    after = read_page_token(str(window), request.page_token)
    await _fresh(views, request.at_least_as_fresh, remaining)
    found, last = await list_pages.page(views, window, after, request.page_size or PAGE_SIZE)
    return found, page_tokens.mint(str(window), last) if last else ""


async def get_reservation(
    reservations: ViewReader, request: protocol.GetReservationRequest, remaining: float | None
) -> bytes:
    """Answer with one reservation."""
    id_ = request.reservation_id
    data = await freshness.view(reservations, id_, request.at_least_as_fresh, remaining)
    if not data:
        raise _not_found("RESERVATION_NOT_FOUND", reservation_id=id_)
    return field(protocol.GetReservationResponse.RESERVATION_FIELD_NUMBER, data)


def watch_reorder_alerts(watch: Watch, _: protocol.WatchReorderAlertsRequest) -> WatchResponses:
    """Answer with an alert whenever it is raised or cleared."""
    return watches.several(watch, ALERTS.change_feed("ever"), ALERTS.index("ever"))


async def get_stock_movements(
    views: ViewReader, request: protocol.GetStockMovementsRequest, remaining: float | None
) -> bytes:
    """Answer with a page of what changed the stock of a sku."""
    listed = f"{LEDGERS.index('sku', request.sku)} {request.warehouse_id}"
    token = read_page_token(listed, request.page_token)
    await _fresh(views, request.at_least_as_fresh, remaining)
    found, _ = await list_pages.page(views, Window(LEDGERS.index("sku", request.sku)), "", WAREHOUSES)
    all_ = map(StockLedger.FromString, found)
    asked = [one for one in all_ if request.warehouse_id in ("", one.warehouse_id)]
    if not asked:
        raise _not_found("STOCK_NOT_FOUND", sku=request.sku, warehouse_id=request.warehouse_id)
    places = {one.stock_id: one.version for one in asked}
    if token:
        places = _resumed(places, token)
    size = request.page_size or PAGE_SIZE
    movements, left = await ledger_pages.page(
        views, StockMovement, places, size, lambda movement: movement.kind
    )
    next_ = page_tokens.mint(listed, msgspec.json.encode(left).decode()) if left else ""
    return protocol.GetStockMovementsResponse(movements=movements, next_page_token=next_).SerializeToString()


def _resumed(versions: dict[str, int], token: str) -> dict[str, int]:
    """Return where the page before has left each ledger, as a caller claims."""
    try:
        left = msgspec.json.decode(token, type=dict[str, int])
    except msgspec.MsgspecError:
        raise invalid_page_token() from None
    return {id_: min(version, left.get(id_, 0)) for id_, version in versions.items()}


async def _fresh(views: ViewReader, token: str, remaining: float | None) -> None:
    if token:
        await freshness.read(views, token, remaining=remaining)


def _not_found(reason: str, **facts: str) -> RpcError:
    known = {name: fact for name, fact in facts.items() if fact}
    return RpcError.not_found("inventory", reason, known)


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
