"""Order cards: orders with their products, customers and fulfilments.

They are joined when they are read (docs/adr/0054-views-are-joined-when-they-are-read.md).
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain

from diptych.catalogue.v1.types_pb2 import Product
from diptych.customers.v1.types_pb2 import Customer
from diptych.fulfilment.v1.types_pb2 import Fulfilment
from diptych.ordering.v1 import query_service_pb2 as protocol
from diptych.ordering.v1.types_pb2 import CardFulfilment, CardProduct, Order
from msgspec.structs import replace

from contracts.money import to_nanos
from contracts.view_layout import View, index_bound, ranked_member, time_of_member
from query_server import joined_list_pages
from query_server.fresh_reader import FreshReader
from query_server.joined_list_pages import FilteredList, SortedList, ViewList
from query_server.timestamps import Period, read_period
from query_server.view_reader import Window
from query_server.wire_format import encode_field, encode_repeated

ORDER, PRODUCTS, CUSTOMER_NAME, FULFILMENT = 1, 2, 3, 4
"""The fields of a card."""
VIEWS = (View.of(Product), View.of(Customer), View.of(Fulfilment))
"""What a card shows besides its order, in the order of `FreshReader.others`."""


async def list_order_cards(orders: FreshReader, request: protocol.ListOrderCardsRequest) -> bytes:
    period = read_period(request, "placed_from", "placed_before")
    by_time = Window.of_period(_select_index(orders.view, request), period)
    view_list: ViewList = FilteredList(by_time, lambda _: True, _select_orders(request))
    if request.sort == request.SORT_TOTAL:
        by_total = Window(orders.view.index("total", request.currency_code))
        long_list = FilteredList(by_total, _select_times(period), _select_orders(request))
        view_list = SortedList(by_time, _select_orders(request), _rank, long_list)
    filters = (request.customer_id, request.state, request.sku, request.sort, request.currency_code)
    page = await joined_list_pages.read_page(
        orders, view_list, f"cards {filters} {period}", request, partial(join, orders)
    )
    return page.encode()


def _select_index(view: View, request: protocol.ListOrderCardsRequest) -> str:
    """Return the index by time that leaves out most of what the request does."""
    state = Order.State.Name(request.state)
    if request.customer_id and request.state:
        return view.index("customer_state", request.customer_id, state)
    if request.customer_id:
        return view.index("customer", request.customer_id)
    if request.sku:
        return view.index("sku", request.sku)
    return view.index("state", state) if request.state else view.index("all")


def _select_times(period: Period) -> Callable[[str], bool]:
    low = "" if period.start is None else index_bound(period.start)
    high = "g" if period.end is None else index_bound(period.end)  # times are hexadecimal
    return lambda member: low <= time_of_member(member) < high


def _select_orders(request: protocol.ListOrderCardsRequest) -> Callable[[bytes], bool]:
    def selects(data: bytes) -> bool:
        order = Order.FromString(data)
        return (
            request.customer_id in ("", order.customer_id)
            and request.state in (0, order.state)
            and (not request.sku or request.sku in _list_skus(order))
            and request.currency_code in ("", order.total.currency_code)
        )

    return selects


def _rank(data: bytes) -> str:
    """Return the member of an order in the index by total."""
    order = Order.FromString(data)
    return ranked_member(to_nanos(order.total), order.place_time.ToMicroseconds(), order.order_id)


async def join(orders: FreshReader, views: Sequence[bytes]) -> Sequence[bytes]:
    """Return the serialised cards of serialised orders."""
    products, customers, fulfilments = orders.others
    # Without the token: a card does not wait until the fulfilment has processed its order's event.
    fulfilments = replace(fulfilments, token="")
    parsed = [Order.FromString(view) for view in views]
    skus = [_list_skus(order) for order in parsed]
    titles, names, progress = await asyncio.gather(
        _read_known(products, chain.from_iterable(skus), _describe_product),
        _read_known(customers, [order.customer_id for order in parsed], _get_name),
        _read_known(fulfilments, [order.order_id for order in parsed], _describe_fulfilment),
    )
    return [
        encode_field(ORDER, view)
        + encode_repeated(PRODUCTS, [titles[sku] for sku in own if sku in titles])
        + encode_repeated(CUSTOMER_NAME, [names[order.customer_id]] if order.customer_id in names else [])
        + encode_repeated(FULFILMENT, [progress[order.order_id]] if order.order_id in progress else [])
        for view, order, own in zip(views, parsed, skus, strict=True)
    ]


def _list_skus(order: Order) -> list[str]:
    return list(dict.fromkeys(line.sku for group in order.shipping_groups for line in group.lines))


async def _read_known(
    reader: FreshReader, ids: Iterable[str], describe: Callable[[bytes], bytes]
) -> dict[str, bytes]:
    """Return what cards say of the views with these ids, without those that do not exist."""
    distinct = list(dict.fromkeys(ids))
    found = zip(distinct, await reader.get_all(distinct), strict=True)
    return {view_id: describe(data) for view_id, data in found if isinstance(data, bytes)}


def _describe_product(data: bytes) -> bytes:
    product = Product.FromString(data)
    details = product.details
    return CardProduct(
        sku=product.sku,
        title=details.title,
        picture_url=details.picture_urls[0] if details.picture_urls else "",
        is_published=product.state == Product.STATE_PUBLISHED,
    ).SerializeToString()


def _describe_fulfilment(data: bytes) -> bytes:
    fulfilment = Fulfilment.FromString(data)
    return CardFulfilment(
        state=fulfilment.state, state_start_time=fulfilment.state_start_time
    ).SerializeToString()


def _get_name(data: bytes) -> bytes:
    return Customer.FromString(data).name.encode()
