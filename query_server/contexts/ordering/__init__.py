"""Queries of ordering: orders by id, lists of orders, facts about customers, and order histories."""

from collections import Counter
from collections.abc import Sequence

from diptych.ordering.v1 import query_service_pb2 as protocol
from diptych.ordering.v1.types_pb2 import CustomerSummary, Order, OrderHistory, OrderHistoryEntry

from contracts.money import counter_to_nanos, from_nanos
from contracts.view_layout import View, id_of_member, index_bound
from query_server import batches, history_pages, list_pages, watches
from query_server.contexts.ordering import cards
from query_server.counters import parse_enum
from query_server.fresh_reader import FreshReader
from query_server.not_found import NotFound
from query_server.service import Query, QueryContext, WatchQuery
from query_server.timestamps import read_period, to_nanoseconds
from query_server.view_reader import Window
from query_server.watches import Watch, WatchResponses
from query_server.wire_format import encode_view
from runtime.redis.pipeline import Command

ORDERS, HISTORIES = View.of(Order), View.of(OrderHistory)
MAX_COUNTED_ORDERS = 100
"""Orders that GetCustomerActivity counts."""
ORDER_NOT_FOUND = NotFound("ordering", "ORDER_NOT_FOUND", ("order_id",))


async def get_order(orders: FreshReader, request: protocol.GetOrderRequest) -> bytes:
    return encode_view(await orders.get(request.order_id, ORDER_NOT_FOUND))


async def batch_get_orders(orders: FreshReader, request: protocol.BatchGetOrdersRequest) -> bytes:
    return (await batches.read_batch(orders, request.order_ids)).encode()


async def list_orders(orders: FreshReader, request: protocol.ListOrdersRequest) -> bytes:
    index = _select_index(orders.view, request.customer_id, request.state)
    window = Window.of_period(index, read_period(request, "placed_from", "placed_before"))
    return (await list_pages.read_page(orders, window, request)).encode()


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


async def get_order_card(orders: FreshReader, request: protocol.GetOrderCardRequest) -> bytes:
    order = await orders.get(request.order_id, ORDER_NOT_FOUND)
    (card,) = await cards.join(orders, [order])
    return encode_view(card)


async def get_customer_summary(orders: FreshReader, request: protocol.GetCustomerSummaryRequest) -> bytes:
    counters = await orders.get_counters(orders.view.counters("customer", request.customer_id))
    summary = _build_summary(request.customer_id, counters)
    return protocol.GetCustomerSummaryResponse(summary=summary).SerializeToString()


def _build_summary(customer_id: str, counters: dict[str, int]) -> CustomerSummary:
    """Return the summary of counters like `orders/STATE_PLACED` and `units/STATE_PLACED/EUR`."""
    counts: dict[Order.State.ValueType, int] = {}
    nanos: Counter[tuple[Order.State.ValueType, str]] = Counter()
    for name, value in counters.items():
        part, state_name, *currency = name.split("/", 2)
        state = parse_enum(Order.State, state_name)
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


async def get_customer_activity(orders: FreshReader, request: protocol.GetCustomerActivityRequest) -> bytes:
    low = f"[{index_bound(to_nanoseconds(request.placed_from))}" if request.HasField("placed_from") else "-"
    view, customer, digests = orders.view, request.customer_id, request.address_digests
    # Each range has one member more than needed, because one may be the order that is left out.
    latest, *by_digest = await orders.read(
        ("ZRANGE", view.index("customer", customer), low, "+", "BYLEX", "LIMIT", 0, MAX_COUNTED_ORDERS + 1),
        *(_read_orders_sent_to(view, customer, digest) for digest in digests),
    )

    def count_others(members: Sequence[bytes]) -> int:
        return sum(
            id_of_member(member.decode(errors="replace")) != request.except_order_id for member in members
        )

    known = [digest for digest, members in zip(digests, by_digest, strict=True) if count_others(members)]
    count = min(count_others(latest), MAX_COUNTED_ORDERS)
    response = protocol.GetCustomerActivityResponse(order_count=count, known_address_digests=known)
    return response.SerializeToString()


def _read_orders_sent_to(view: View, customer_id: str, digest: str) -> Command:
    """Return the command that reads the first two index members of a customer's orders to an address."""
    index = view.index("customer_address", customer_id)
    # A semicolon is the character after the colon that ends the digest in a member.
    return ("ZRANGE", index, f"[{digest}:", f"({digest};", "BYLEX", "LIMIT", 0, 2)


async def get_order_history(histories: FreshReader, request: protocol.GetOrderHistoryRequest) -> bytes:
    page = await history_pages.read_page(
        histories, request.order_id, ORDER_NOT_FOUND, request, OrderHistoryEntry
    )
    return page.encode()


def watch_order(watch: Watch, request: protocol.WatchOrderRequest) -> WatchResponses:
    return watches.watch_view(watch, request.order_id, ORDER_NOT_FOUND)


def watch_customer_orders(watch: Watch, request: protocol.WatchCustomerOrdersRequest) -> WatchResponses:
    customer_id = request.customer_id
    return watches.watch_feed(
        watch, watch.view.change_feed("customer", customer_id), watch.view.index("customer", customer_id)
    )


CONTEXT = QueryContext(
    protocol.DESCRIPTOR.services_by_name["QueryService"],
    {
        "GetOrder": Query(ORDERS, get_order),
        "BatchGetOrders": Query(ORDERS, batch_get_orders),
        "ListOrders": Query(ORDERS, list_orders),
        "GetOrderCard": Query(ORDERS, get_order_card, cards.VIEWS),
        "ListOrderCards": Query(ORDERS, cards.list_order_cards, cards.VIEWS),
        "GetCustomerSummary": Query(ORDERS, get_customer_summary),
        "GetCustomerActivity": Query(ORDERS, get_customer_activity),
        "GetOrderHistory": Query(HISTORIES, get_order_history),
    },
    {
        "WatchOrder": WatchQuery(ORDERS, watch_order),
        "WatchCustomerOrders": WatchQuery(ORDERS, watch_customer_orders),
    },
)
