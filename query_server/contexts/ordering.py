"""Queries of ordering: one order, and lists of orders by customer, by state or by both."""

from diptych.ordering.v1 import query_service_pb2 as protocol
from diptych.ordering.v1.types_pb2 import Order

from query_server import freshness, listing, pages
from query_server.framing import field
from query_server.service import Query, QueryContext
from query_server.views import ViewReader
from runtime.errors import Refusal
from runtime.views import View

ORDERS = View.of(Order)
PAGE_SIZE = 20
"""Orders on a page where the request does not say."""


async def get_order(orders: ViewReader, request: protocol.GetOrderRequest, remaining: float | None) -> bytes:
    """Answer with one order."""
    order_id = request.order_id
    if token := request.at_least_as_fresh:
        read = orders.data_of(order_id)
        (data,) = await freshness.read(orders, token, read, own=order_id, remaining=remaining)
    else:
        data = await orders.get(order_id)
    if not data:
        raise Refusal.of_rule("ordering", "ORDER_NOT_FOUND", {"order_id": order_id}, "missing")
    return field(protocol.GetOrderResponse.ORDER_FIELD_NUMBER, data)


async def list_orders(
    orders: ViewReader, request: protocol.ListOrdersRequest, remaining: float | None
) -> bytes:
    """Answer with a page of orders."""
    index = _index(orders.view, request)
    after = pages.read(index, request.page_token)
    if request.at_least_as_fresh:
        await freshness.read(orders, request.at_least_as_fresh, remaining=remaining)
    found, last = await listing.page(orders, index, after, request.page_size or PAGE_SIZE)
    response = [field(protocol.ListOrdersResponse.ORDERS_FIELD_NUMBER, data) for data in found]
    if last:
        token = pages.mint(index, last).encode()
        response.append(field(protocol.ListOrdersResponse.NEXT_PAGE_TOKEN_FIELD_NUMBER, token))
    return b"".join(response)


def _index(view: View, request: protocol.ListOrdersRequest) -> str:
    """Return the key of the index that the request's filters select."""
    state = Order.State.Name(request.state)
    match request.customer_id, request.state:
        case customer_id, Order.STATE_UNSPECIFIED:
            return view.index("customer", customer_id)
        case "", _:
            return view.index("state", state)
        case customer_id, _:
            return view.index("customer_state", customer_id, state)


CONTEXT = QueryContext(
    protocol.DESCRIPTOR.services_by_name["QueryService"],
    {
        "GetOrder": Query(ORDERS, get_order),
        "ListOrders": Query(ORDERS, list_orders),
    },
)
