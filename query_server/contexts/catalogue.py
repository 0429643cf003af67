"""Queries of the catalogue: products by sku, lists and histories of them, quotes, and the category tree."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from diptych.catalogue.v1 import query_service_pb2 as protocol
from diptych.catalogue.v1.types_pb2 import CategoryTree, Product
from diptych.pricing.v1.quote_pb2 import Quote
from google.type.money_pb2 import Money

from contracts.key_ring import Purpose
from contracts.quotes import Quotes
from contracts.view_layout import View
from query_server import batches, history_pages, list_pages, merged_list_pages, watches
from query_server.fresh_reader import FreshReader
from query_server.not_found import NotFound
from query_server.service import Query, QueryContext, WatchQuery
from query_server.timestamps import to_nanoseconds
from query_server.view_reader import Window
from query_server.watches import Watch, WatchResponses
from query_server.wire_format import encode_view
from runtime.grpc.rpc_error import RpcError

PRODUCTS, TREES = View.of(Product), View.of(CategoryTree)
TREE_ID = "tree"
QUOTES_LAST = timedelta(minutes=15)
"""The time for which a quote is valid."""
CLOCKS_DIFFER = timedelta(seconds=1)
"""The time by which a price is quoted early: its time is of the database's clock, which may be ahead of this
server's, and a price that was just set is in force."""
PRODUCT_NOT_FOUND = NotFound("catalogue", "PRODUCT_NOT_FOUND", ("sku",))
CATEGORY_NOT_FOUND = NotFound("catalogue", "CATEGORY_NOT_FOUND", ("category_id",))


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
        category_ids = list(list_subtree(find_children(await read_tree(trees)), request.category_id))
        if not category_ids:
            raise CATEGORY_NOT_FOUND.error(request.category_id)
        if not request.include_descendants:
            del category_ids[1:]
        return [Window(products.view.index("category", category_id)) for category_id in category_ids]

    list_id = f"{request.category_id} {request.include_descendants}"
    return (await merged_list_pages.read_page(products, find_windows, list_id, request)).encode()


@lru_cache(maxsize=4)
def find_children(tree: bytes) -> Mapping[str, Sequence[str]]:
    """Return the ids of the categories directly below each category of a serialised tree.

    Trees change seldom, and reading one of 1,000 categories takes 0.6 ms.
    """
    categories = CategoryTree.FromString(tree).categories
    children: dict[str, list[str]] = {each.category_id: [] for each in categories}
    for each in categories:
        if each.parent_id:
            children[each.parent_id].append(each.category_id)
    return children


def list_subtree(children: Mapping[str, Sequence[str]], category_id: str) -> Iterator[str]:
    """Yield the ids of a category and of all below it; none if there is no such category."""
    pending = [category_id] if category_id in children else []
    while pending:
        yield (found := pending.pop())
        pending += children[found]


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


def find_price(product: Product, now: datetime) -> Money | None:
    """Return the last price whose time has come, or comes within CLOCKS_DIFFER; None before the first one."""
    nanos = int((now + CLOCKS_DIFFER).timestamp() * 1_000_000) * 1_000
    prices = [each.amount for each in product.prices if to_nanoseconds(each.effective_from) <= nanos]
    return prices[-1] if prices else None


async def get_category_tree(trees: FreshReader, _: protocol.GetCategoryTreeRequest) -> bytes:
    tree = await read_tree(trees)
    return encode_view(tree) if tree else b""


async def read_tree(trees: FreshReader) -> bytes:
    """Return the serialised category tree, empty if no category was added.

    Raises:
        RpcError: an error of the reader.
    """
    (data,) = await trees.get_all([TREE_ID])
    if isinstance(data, RpcError):
        raise data
    return data if isinstance(data, bytes) else b""


async def get_product_history(products: FreshReader, request: protocol.GetProductHistoryRequest) -> bytes:
    return (await history_pages.read_page(products, request.sku, PRODUCT_NOT_FOUND, request)).encode()


def watch_product(watch: Watch, request: protocol.WatchProductRequest) -> WatchResponses:
    return watches.watch_view(watch, request.sku, PRODUCT_NOT_FOUND)


CONTEXT = QueryContext(
    protocol.DESCRIPTOR.services_by_name["QueryService"],
    {
        "GetProduct": Query(PRODUCTS, get_product),
        "BatchGetProducts": Query(PRODUCTS, batch_get_products),
        "ListProducts": Query(PRODUCTS, list_products),
        "BrowseCategory": Query(PRODUCTS, browse_category, (TREES,)),
        "QuotePrices": Query(PRODUCTS, quote_prices),
        "GetCategoryTree": Query(TREES, get_category_tree),
        "GetProductHistory": Query(PRODUCTS, get_product_history),
    },
    {"WatchProduct": WatchQuery(PRODUCTS, watch_product)},
    key_purposes=(Purpose.QUOTE,),
)
