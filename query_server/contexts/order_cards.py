"""Order cards: orders joined with the products of their lines, when they are read.

An index leaves out most of what a list does not have, a selection the rest. Nothing of the products is stored
with the orders (docs/adr/0054-views-are-joined-when-they-are-read.md).
"""

from collections.abc import Callable, Sequence
from functools import partial

from diptych.catalogue.v1.types_pb2 import Product
from diptych.ordering.v1 import query_service_pb2 as protocol
from diptych.ordering.v1.types_pb2 import CardProduct, Order

from contracts.view_layout import View, index_bound, time_of_member
from query_server import merged_list_pages
from query_server.fresh_reader import FreshReader
from query_server.merged_list_pages import Selection
from query_server.timestamps import Period, read_period
from query_server.view_reader import Window
from query_server.wire_format import encode_field, encode_repeated

ORDER, PRODUCTS = 1, 2
"""The fields of a card."""
VIEWS = (View.of(Product),)
"""What a card shows besides its order, in the order of `FreshReader.others`."""


async def list_order_cards(orders: FreshReader, request: protocol.ListOrderCardsRequest) -> bytes:
    period = read_period(request, "placed_from", "placed_before")
    is_by_total = request.sort == request.SORT_TOTAL
    list_indexes = _list_indexes_by_total if is_by_total else _list_indexes_by_time
    indexes = list_indexes(orders.view, request)
    windows = [Window(index) if is_by_total else Window.of_period(index, period) for index in indexes]

    async def find_windows() -> Sequence[Window]:
        return windows

    filters = (request.customer_id, request.state, request.sku, request.sort, request.currency_code)
    page = await merged_list_pages.read_page(
        orders,
        find_windows,
        f"cards {filters} {period}",
        request,
        Selection(_select_times(period), _select_orders(request)),
        partial(join, orders),
    )
    return page.encode()


def _list_indexes_by_time(view: View, request: protocol.ListOrderCardsRequest) -> list[str]:
    """Return the index that leaves out most of what the request does."""
    state = Order.State.Name(request.state)
    if request.customer_id and request.state:
        return [view.index("customer_state", request.customer_id, state)]
    if request.customer_id:
        return [view.index("customer", request.customer_id)]
    if request.sku:
        return [view.index("sku", request.sku)]
    return [view.index("state", state) if request.state else view.index("all")]


def _list_indexes_by_total(view: View, request: protocol.ListOrderCardsRequest) -> list[str]:
    """As `_list_indexes_by_time`; the orders of all states are those of each."""
    currency = request.currency_code
    if request.customer_id:
        return [view.index("customer_total", request.customer_id, currency)]
    if request.sku:
        return [view.index("sku_total", request.sku, currency)]
    states = [request.state] if request.state else [state for state in Order.State.values() if state]
    return [view.index("state_total", Order.State.Name(state), currency) for state in states]


def _select_times(period: Period) -> Callable[[str], bool]:
    low = "" if period.start is None else index_bound(period.start)
    high = "g" if period.end is None else index_bound(period.end)  # times are hexadecimal
    return lambda member: low <= time_of_member(member) < high


def _select_orders(request: protocol.ListOrderCardsRequest) -> Callable[[bytes], bool]:
    state, sku = request.state, request.sku

    def selects(data: bytes) -> bool:
        order = Order.FromString(data)
        return (not state or order.state == state) and (not sku or sku in _list_skus(order))

    return selects


async def join(orders: FreshReader, views: Sequence[bytes]) -> Sequence[bytes]:
    """Return the serialised cards of serialised orders."""
    (products,) = orders.others
    skus = [_list_skus(Order.FromString(view)) for view in views]
    known = await _read_products(products, list(dict.fromkeys(sku for each in skus for sku in each)))
    return [
        encode_field(ORDER, view) + encode_repeated(PRODUCTS, [known[sku] for sku in own if sku in known])
        for view, own in zip(views, skus, strict=True)
    ]


def _list_skus(order: Order) -> list[str]:
    return list(dict.fromkeys(line.sku for group in order.shipping_groups for line in group.lines))


async def _read_products(products: FreshReader, skus: Sequence[str]) -> dict[str, bytes]:
    """Return the serialised products of cards by sku, without those that the catalogue does not have."""
    found = zip(skus, await products.get_all(skus), strict=True)
    return {sku: _describe_product(data) for sku, data in found if isinstance(data, bytes)}


def _describe_product(data: bytes) -> bytes:
    product = Product.FromString(data)
    details = product.details
    return CardProduct(
        sku=product.sku,
        title=details.title,
        picture_url=details.picture_urls[0] if details.picture_urls else "",
        is_published=product.state == Product.STATE_PUBLISHED,
    ).SerializeToString()
