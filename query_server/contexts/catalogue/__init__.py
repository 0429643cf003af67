"""Queries of the catalogue: products by sku, lists and histories of them, quotes, and the category tree.

Searches are in `search`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from diptych.catalogue.v1 import query_service_pb2 as protocol
from diptych.catalogue.v1.types_pb2 import Product
from diptych.history.v1.history_pb2 import Entry
from diptych.pricing.v1.quote_pb2 import Quote

from contracts.key_ring import Purpose
from contracts.quotes import Quotes
from query_server import batches, history_pages, list_pages, merged_list_pages, watches
from query_server.contexts.catalogue.index import INDEX, PRODUCTS, STOCKS, find_price
from query_server.contexts.catalogue.search import search_products, suggest_products
from query_server.contexts.catalogue.tree import (
    CATEGORY_NOT_FOUND,
    TREES,
    list_subtree,
    read_children,
    read_tree,
)
from query_server.fresh_reader import FreshReader
from query_server.not_found import NotFound
from query_server.service import Query, QueryContext, WatchQuery
from query_server.view_reader import Window
from query_server.watches import Watch, WatchResponses
from query_server.wire_format import encode_view

QUOTES_LAST = timedelta(minutes=15)
"""The time for which a quote is valid."""
PRODUCT_NOT_FOUND = NotFound("catalogue", "PRODUCT_NOT_FOUND", ("sku",))


async def get_product(products: FreshReader, request: protocol.GetProductRequest) -> bytes:
    return encode_view(await products.get(request.sku, PRODUCT_NOT_FOUND))


async def batch_get_products(products: FreshReader, request: protocol.BatchGetProductsRequest) -> bytes:
    return (await batches.read_batch(products, request.skus)).encode()


async def list_products(products: FreshReader, request: protocol.ListProductsRequest) -> bytes:
    state = (Product.State.Name(request.state),) if request.state else ()
    index = products.view.index("state", *state) if state else products.view.index("all")
    return (await list_pages.read_page(products, Window(index), request)).encode()


async def browse_category(products: FreshReader, request: protocol.BrowseCategoryRequest) -> bytes:
    """Respond with a page of a category's products, or of those of all categories below it as well."""
    (trees,) = products.others

    async def find_windows() -> Sequence[Window]:
        category_ids = list(list_subtree(await read_children(trees), request.category_id))
        if not category_ids:
            raise CATEGORY_NOT_FOUND.error(request.category_id)
        if not request.include_descendants:
            del category_ids[1:]
        return [Window(products.view.index("category", category_id)) for category_id in category_ids]

    list_id = f"{request.category_id} {request.include_descendants}"
    return (await merged_list_pages.read_page(products, find_windows, list_id, request)).encode()


async def quote_prices(products: FreshReader, request: protocol.QuotePricesRequest) -> bytes:
    """Respond with signed quotes of the products that are for sale."""
    now, quotes = datetime.now(UTC), Quotes(products.tokens.get_ring)
    response = protocol.QuotePricesResponse()
    for sku, data in zip(request.skus, await products.get_all(request.skus), strict=True):
        product = Product.FromString(data) if isinstance(data, bytes) else Product()
        price = find_price(product, now) if product.state == Product.STATE_PUBLISHED else None
        if price is None:
            response.unavailable_skus.append(sku)
            continue
        quote = Quote(sku=sku, price=price, customer_id=request.customer_id)
        quote.expires_at.FromDatetime(now + QUOTES_LAST)
        response.quotes.add(
            sku=sku, price=quote.price, expire_time=quote.expires_at, quote=quotes.sign(quote)
        )
    return response.SerializeToString()


async def get_category_tree(trees: FreshReader, _: protocol.GetCategoryTreeRequest) -> bytes:
    tree = await read_tree(trees)
    return encode_view(tree) if tree else b""


async def get_product_history(products: FreshReader, request: protocol.GetProductHistoryRequest) -> bytes:
    page = await history_pages.read_page(products, request.sku, PRODUCT_NOT_FOUND, request, Entry)
    return page.encode()


def watch_product(watch: Watch, request: protocol.WatchProductRequest) -> WatchResponses:
    return watches.watch_view(watch, request.sku, PRODUCT_NOT_FOUND)


CONTEXT = QueryContext(
    protocol.DESCRIPTOR.services_by_name["QueryService"],
    {
        "GetProduct": Query(PRODUCTS, get_product),
        "BatchGetProducts": Query(PRODUCTS, batch_get_products),
        "ListProducts": Query(PRODUCTS, list_products),
        "BrowseCategory": Query(PRODUCTS, browse_category, (TREES,)),
        "SearchProducts": Query(PRODUCTS, search_products, (TREES, STOCKS), INDEX),
        "SuggestProducts": Query(PRODUCTS, suggest_products, index=INDEX),
        "QuotePrices": Query(PRODUCTS, quote_prices),
        "GetCategoryTree": Query(TREES, get_category_tree),
        "GetProductHistory": Query(PRODUCTS, get_product_history),
    },
    {"WatchProduct": WatchQuery(PRODUCTS, watch_product)},
    key_purposes=(Purpose.QUOTE,),
)
