"""Queries of ordering: orders by id, lists of orders, customer summaries, and order histories."""

from collections import Counter
from collections.abc import Sequence

from diptych.ordering.v1 import query_service_pb2 as protocol
from diptych.ordering.v1.types_pb2 import CustomerSummary, Order, OrderHistory
from google.protobuf.timestamp_pb2 import Timestamp

from contracts import page_tokens
from contracts.money import counter_to_nanos, from_nanos
from contracts.view_layout import View, index_bound
from query_server import freshness, history_pages, list_pages, watches
from query_server.counters import parse_counters
from query_server.service import Query, QueryContext, WatchQuery
from query_server.timestamps import to_nanoseconds
from query_server.view_reader import ViewReader, Window
from query_server.watches import Watch, WatchResponses
from query_server.wire_format import encode_field
from runtime.grpc.request_tokens import read_page_token
from runtime.grpc.rpc_error import RpcError

ORDERS, HISTORIES = View.of(Order), View.of(OrderHistory)
DEFAULT_PAGE_SIZE = 20
"""Orders or history entries per page."""


async def get_order(orders: ViewReader, request: protocol.GetOrderRequest, remaining: float | None) -> bytes:
    order_id = request.order_id
    data = await freshness.read_view(orders, order_id, request.at_least_as_fresh, remaining)
    if not data:
        raise _not_found(order_id)
    return encode_field(protocol.GetOrderResponse.ORDER_FIELD_NUMBER, data)


async def batch_get_orders(
    orders: ViewReader, request: protocol.BatchGetOrdersRequest, remaining: float | None
) -> bytes:
    """Respond with the orders that exist, and the ids of those that do not."""
    ids = list(request.order_ids)
    views: Sequence[bytes | None]
    if token := request.at_least_as_fresh:
        reads = [orders.data_command(order_id) for order_id in ids]
        views = await freshness.read(orders, token, *reads, remaining=remaining)
    else:
        views = await orders.get_all(ids)
    number = protocol.BatchGetOrdersResponse.ORDERS_FIELD_NUMBER
    missing_ids = [order_id for order_id, data in zip(ids, views, strict=True) if not data]
    return (
        b"".join(encode_field(number, data) for data in views if data)
        + protocol.BatchGetOrdersResponse(missing_order_ids=missing_ids).SerializeToString()
    )


async def list_orders(
    orders: ViewReader, request: protocol.ListOrdersRequest, remaining: float | None
) -> bytes:
    window = _select_window(orders.view, request)
    after = read_page_token(str(window), request.page_token)
    if request.at_least_as_fresh:
        await freshness.read(orders, request.at_least_as_fresh, remaining=remaining)
    page, last = await list_pages.read_page(orders, window, after, request.page_size or DEFAULT_PAGE_SIZE)
    token = page_tokens.mint(str(window), last) if last else ""
    number = protocol.ListOrdersResponse.ORDERS_FIELD_NUMBER
    return (
        b"".join(encode_field(number, data) for data in page)
        + protocol.ListOrdersResponse(next_page_token=token).SerializeToString()
    )


def _select_window(view: View, request: protocol.ListOrdersRequest) -> Window:
    """Return the range of an index that the request's filters select."""
    low = _parse_bound(request.placed_from) if request.HasField("placed_from") else ""
    high = _parse_bound(request.placed_before) if request.HasField("placed_before") else ""
    return Window(_select_index(view, request.customer_id, request.state), low, high)


def _select_index(view: View, customer_id: str, state: Order.State.ValueType) -> str:
    match customer_id, state:
        case "", Order.STATE_UNSPECIFIED:
            return view.index("all")
        case _, Order.STATE_UNSPECIFIED:
            return view.index("customer", customer_id)
        case "", _:
            return view.index("state", Order.State.Name(state))
        case _:
            return view.index("customer_state", customer_id, Order.State.Name(state))


def _parse_bound(time: Timestamp) -> str:
    return index_bound(to_nanoseconds(time))


async def get_customer_summary(
    orders: ViewReader, request: protocol.GetCustomerSummaryRequest, remaining: float | None
) -> bytes:
    counters_read = ("HGETALL", orders.view.counters("customer", request.customer_id))
    if token := request.at_least_as_fresh:
        (reply,) = await freshness.read(orders, token, counters_read, remaining=remaining)
    else:
        _, (reply,) = await orders.read_while_ready(counters_read)
    summary = _build_summary(request.customer_id, parse_counters(reply))
    return protocol.GetCustomerSummaryResponse(summary=summary).SerializeToString()


def _build_summary(customer_id: str, counters: dict[str, int]) -> CustomerSummary:
    """Return the summary of counters like `orders/STATE_PLACED` and `units/STATE_PLACED/EUR`."""
    counts: dict[Order.State.ValueType, int] = {}
    nanos: Counter[tuple[Order.State.ValueType, str]] = Counter()
    for name, value in counters.items():
        part, state_name, *currency = name.split("/", 2)
        state = _parse_state(state_name)
        if part == "orders":
            counts[state] = value
        else:
            nanos[state, currency[0]] += counter_to_nanos(part, value)
    summary = CustomerSummary(customer_id=customer_id)
    for state in sorted(counts):
        totals = [
            from_nanos(currency, total)
            for (total_state, currency), total in sorted(nanos.items())
            if total_state == state
        ]
        summary.states.add(state=state, order_count=counts[state], totals=totals)
    return summary


def _parse_state(name: str) -> Order.State.ValueType:
    try:
        return Order.State.Value(name)
    except ValueError:
        raise RpcError("VIEW_NEWER", f"{name} is unknown to this server", retry_after=1.0) from None


async def get_order_history(
    histories: ViewReader, request: protocol.GetOrderHistoryRequest, remaining: float | None
) -> bytes:
    order_id = request.order_id
    list_name = histories.view.history(order_id)
    after = read_page_token(list_name, request.page_token)
    version_read = histories.version_command(order_id)
    if token := request.at_least_as_fresh:
        (version,) = await freshness.read(histories, token, version_read, remaining=remaining)
    else:
        _, (version,) = await histories.read_while_ready(version_read)
    if not int(version or 0):
        raise _not_found(order_id)
    size = request.page_size or DEFAULT_PAGE_SIZE
    entries, last = await history_pages.read_page(histories, order_id, int(version), after, size)
    number = protocol.GetOrderHistoryResponse.ENTRIES_FIELD_NUMBER
    response = protocol.GetOrderHistoryResponse(
        next_page_token=page_tokens.mint(list_name, last) if last else ""
    )
    return b"".join(encode_field(number, entry) for entry in entries) + response.SerializeToString()


def watch_order(watch: Watch, request: protocol.WatchOrderRequest) -> WatchResponses:
    return watches.watch_view(watch, request.order_id, _not_found(request.order_id))


def watch_customer_orders(watch: Watch, request: protocol.WatchCustomerOrdersRequest) -> WatchResponses:
    feed_key = ORDERS.change_feed("customer", request.customer_id)
    index = ORDERS.index("customer", request.customer_id)
    return watches.watch_feed(watch, feed_key, index)


def _not_found(order_id: str) -> RpcError:
    return RpcError.not_found("ordering", "ORDER_NOT_FOUND", {"order_id": order_id})


CONTEXT = QueryContext(
    protocol.DESCRIPTOR.services_by_name["QueryService"],
    {
        "GetOrder": Query(ORDERS, get_order),
        "BatchGetOrders": Query(ORDERS, batch_get_orders),
        "ListOrders": Query(ORDERS, list_orders),
        "GetCustomerSummary": Query(ORDERS, get_customer_summary),
        "GetOrderHistory": Query(HISTORIES, get_order_history),
    },
    {
        "WatchOrder": WatchQuery(ORDERS, watch_order),
        "WatchCustomerOrders": WatchQuery(ORDERS, watch_customer_orders),
    },
)
