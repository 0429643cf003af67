"""Queries of ordering: orders by their ids, lists of them, what a customer's come to, what happened."""

from collections import Counter
from collections.abc import Sequence

from diptych.ordering.v1 import query_service_pb2 as protocol
from diptych.ordering.v1.types_pb2 import CustomerSummary, Order, OrderHistory
from google.protobuf.timestamp_pb2 import Timestamp

from contracts import page_tokens
from contracts.view_layout import View, index_bound
from query_server import freshness, history_pages, list_pages, watches
from query_server.counters import NANOS, counters, money
from query_server.service import Query, QueryContext, WatchQuery
from query_server.timestamps import instant
from query_server.view_reader import ViewReader, Window
from query_server.watches import Watch, WatchResponses
from query_server.wire_format import field
from runtime.grpc.request_tokens import read_page_token
from runtime.grpc.rpc_error import RpcError

ORDERS, HISTORIES = View.of(Order), View.of(OrderHistory)
PAGE_SIZE = 20
"""Orders or entries on a page where the request does not say."""


async def get_order(orders: ViewReader, request: protocol.GetOrderRequest, remaining: float | None) -> bytes:
    """Answer with one order."""
    order_id = request.order_id
    data = await freshness.view(orders, order_id, request.at_least_as_fresh, remaining)
    if not data:
        raise _not_found(order_id)
    return field(protocol.GetOrderResponse.ORDER_FIELD_NUMBER, data)


async def batch_get_orders(
    orders: ViewReader, request: protocol.BatchGetOrdersRequest, remaining: float | None
) -> bytes:
    """Answer with those of the orders that exist, and the ids of the others."""
    ids = list(request.order_ids)
    found: Sequence[bytes | None]
    if token := request.at_least_as_fresh:
        reads = [orders.data_of(order_id) for order_id in ids]
        found = await freshness.read(orders, token, *reads, remaining=remaining)
    else:
        found = await orders.get_all(ids)
    number = protocol.BatchGetOrdersResponse.ORDERS_FIELD_NUMBER
    missing = [order_id for order_id, data in zip(ids, found, strict=True) if not data]
    return (
        b"".join(field(number, data) for data in found if data)
        + protocol.BatchGetOrdersResponse(missing_order_ids=missing).SerializeToString()
    )


async def list_orders(
    orders: ViewReader, request: protocol.ListOrdersRequest, remaining: float | None
) -> bytes:
    """Answer with a page of orders."""
    window = _window(orders.view, request)
    after = read_page_token(str(window), request.page_token)
    if request.at_least_as_fresh:
        await freshness.read(orders, request.at_least_as_fresh, remaining=remaining)
    found, last = await list_pages.page(orders, window, after, request.page_size or PAGE_SIZE)
    token = page_tokens.mint(str(window), last) if last else ""
    number = protocol.ListOrdersResponse.ORDERS_FIELD_NUMBER
    return (
        b"".join(field(number, data) for data in found)
        + protocol.ListOrdersResponse(next_page_token=token).SerializeToString()
    )


def _window(view: View, request: protocol.ListOrdersRequest) -> Window:
    """Return the part of an index that the request's filters select."""
    low = _bound(request.placed_from) if request.HasField("placed_from") else ""
    high = _bound(request.placed_before) if request.HasField("placed_before") else ""
    return Window(_index(view, request.customer_id, request.state), low, high)


def _index(view: View, customer_id: str, state: Order.State.ValueType) -> str:
    match customer_id, state:
        case "", Order.STATE_UNSPECIFIED:
            return view.index("all")
        case _, Order.STATE_UNSPECIFIED:
            return view.index("customer", customer_id)
        case "", _:
            return view.index("state", Order.State.Name(state))
        case _:
            return view.index("customer_state", customer_id, Order.State.Name(state))


def _bound(time: Timestamp) -> str:
    return index_bound(instant(time))


async def get_customer_summary(
    orders: ViewReader, request: protocol.GetCustomerSummaryRequest, remaining: float | None
) -> bytes:
    """Answer with what a customer's orders come to."""
    read = ("HGETALL", orders.view.counters("customer", request.customer_id))
    if token := request.at_least_as_fresh:
        (flat,) = await freshness.read(orders, token, read, remaining=remaining)
    else:
        _, (flat,) = await orders.complete(read)
    summary = _summary(request.customer_id, counters(flat))
    return protocol.GetCustomerSummaryResponse(summary=summary).SerializeToString()


def _summary(customer_id: str, sums: dict[str, int]) -> CustomerSummary:
    """Return the summary that counters like `orders/STATE_PLACED` and `units/STATE_PLACED/EUR` make up."""
    counts: dict[Order.State.ValueType, int] = {}
    nanos: Counter[tuple[Order.State.ValueType, str]] = Counter()
    for name, value in sums.items():
        kind, state_name, *currency = name.split("/", 2)
        state = _state(state_name)
        if kind == "orders":
            counts[state] = value
        else:
            nanos[state, currency[0]] += value * (NANOS if kind == "units" else 1)
    summary = CustomerSummary(customer_id=customer_id)
    for state in sorted(counts):
        totals = [money(currency, sum_) for (of, currency), sum_ in sorted(nanos.items()) if of == state]
        summary.states.add(state=state, order_count=counts[state], totals=totals)
    return summary


def _state(name: str) -> Order.State.ValueType:
    try:
        return Order.State.Value(name)
    except ValueError:
        raise RpcError("VIEW_NEWER", f"{name} is unknown to this server", retry_after=1.0) from None


async def get_order_history(
    histories: ViewReader, request: protocol.GetOrderHistoryRequest, remaining: float | None
) -> bytes:
    """Answer with a page of what happened to an order."""
    order_id = request.order_id
    listed = histories.view.history(order_id)
    after = read_page_token(listed, request.page_token)
    read = histories.version_of(order_id)
    if token := request.at_least_as_fresh:
        (version,) = await freshness.read(histories, token, read, remaining=remaining)
    else:
        _, (version,) = await histories.complete(read)
    if not int(version or 0):
        raise _not_found(order_id)
    size = request.page_size or PAGE_SIZE
    entries, last = await history_pages.page(histories, order_id, int(version), after, size)
    number = protocol.GetOrderHistoryResponse.ENTRIES_FIELD_NUMBER
    response = protocol.GetOrderHistoryResponse(
        next_page_token=page_tokens.mint(listed, last) if last else ""
    )
    return b"".join(field(number, entry) for entry in entries) + response.SerializeToString()


def watch_order(watch: Watch, request: protocol.WatchOrderRequest) -> WatchResponses:
    """Answer with an order whenever it has changed."""
    return watches.one(watch, request.order_id, _not_found(request.order_id))


def watch_customer_orders(watch: Watch, request: protocol.WatchCustomerOrdersRequest) -> WatchResponses:
    """Answer with each of a customer's orders whenever it has changed."""
    change_feed, index = (of("customer", request.customer_id) for of in (ORDERS.change_feed, ORDERS.index))
    return watches.several(watch, change_feed, index)


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
