"""Searches of the catalogue: products by words and filters, and completions of words."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from diptych.catalogue.v1 import query_service_pb2 as protocol
from tantivy import DocAddress, Occur, Query, Searcher

from contracts.money import to_nanos
from query_server.contexts.catalogue.index import (
    SEPARATOR,
    filter_attribute,
    filter_in_stock,
    filter_price,
    filter_values,
    find_corrected_words,
    find_words,
    list_query_words,
)
from query_server.contexts.catalogue.tree import CATEGORY_NOT_FOUND, Children, list_subtree, read_children
from query_server.fresh_reader import FreshReader
from query_server.pages import PagedList, get_size
from query_server.search.follower import IndexFollower
from query_server.search.index import MAX_RESULTS, Found, SearchIndex, Sorting
from query_server.search.shown_documents import ShownDocuments
from query_server.search.text import MIN_PREFIX, find_forbidden, split_words
from query_server.wire_format import ITEMS, NEXT_PAGE_TOKEN, encode_field, encode_repeated
from runtime.grpc.rpc_error import RpcError

MAX_WORDS = 10
SORTINGS = {
    protocol.SearchProductsRequest.SORT_PRICE_ASCENDING: Sorting("price", ascending=True),
    protocol.SearchProductsRequest.SORT_PRICE_DESCENDING: Sorting("price"),
    protocol.SearchProductsRequest.SORT_NEWEST: Sorting("newest"),
}
"""All others are by relevance."""
EXACT, CORRECTED = "e", "c"
"""Modes of a search."""
FACETS = {"brand": 20, "category": 50, "attribute": 50}
"""Fields that are counted, with the numbers of their values in a response."""
COUNTED_VALUES = 10_000
"""Values of a field that are counted in each part of the index, so that the counts are exact."""
DEFAULT_SUGGESTIONS = 10
COUNTED_WORDS = 1_000

Clause = tuple[Occur, Query]
Counts = Mapping[str, Mapping[Any, int]]
"""Numbers of documents, by field and value."""


def read_words(field: str, text: str) -> list[str]:
    """Return the words of a search.

    Raises:
        RpcError: `REQUEST_INVALID`, there are none, or too many, or a character is forbidden.
    """
    words = list_query_words(text)
    if character := find_forbidden(text):
        raise _invalid(field, f"has the forbidden character {character}")
    if not words:
        raise _invalid(field, "has no word")
    if len(words) > MAX_WORDS:
        raise _invalid(field, f"has more than {MAX_WORDS} words")
    return words


def read_currency(request: protocol.SearchProductsRequest) -> str:
    """Return the currency of a search; empty for any.

    Raises:
        RpcError: `REQUEST_INVALID`, its prices do not fit together.
    """
    lower, upper = request.min_price, request.max_price
    currencies = {request.currency_code, lower.currency_code, upper.currency_code} - {""}
    if len(currencies) > 1:
        raise _invalid("max_price", "has another currency than the other prices")
    if request.HasField("max_price") and to_nanos(lower) > to_nanos(upper):
        raise _invalid("max_price", "is below min_price")
    if SORTINGS.get(request.sort, Sorting()).field == "price" and not currencies:
        raise _invalid("currency_code", "is needed to sort by price")
    return "".join(currencies)


def _invalid(field: str, fault: str) -> RpcError:
    return RpcError("REQUEST_INVALID", f"{field}: {fault}", violations={field: fault})


class Result(msgspec.Struct, frozen=True):
    """What one search has found."""

    found: Found
    mode: str
    facets: Counts | None


class Search(msgspec.Struct, frozen=True):
    """A search, to be made in a thread."""

    index: SearchIndex
    words: Sequence[str]
    filters: Sequence[Clause]
    sorting: Sorting
    shown: ShownDocuments
    count: int

    def run(self) -> Result:
        """Search with the words as they are; correct one on the first page if no product has all of them."""
        mode = self.shown.mode or EXACT
        result = self._run(mode)
        if not self.shown.mode and not result.found.total and self._is_unknown():
            return self._run(CORRECTED)
        return result

    def _is_unknown(self) -> bool:
        """Return whether no product has the words, whatever the filters are."""
        if not self.filters:
            return True
        query = Query.boolean_query(find_words(self.index.schema, self.words))
        found: Any = self.index.searcher.search(query, 1)
        return not found.count

    def _run(self, mode: str) -> Result:
        make = find_corrected_words if mode == CORRECTED else find_words
        query = Query.boolean_query([*make(self.index.schema, self.words), *self.filters])
        searcher = self.index.searcher
        found = self.index.find(searcher, query, self.sorting, self.shown.hashes, self.count)
        if self.shown.mode:
            return Result(found, mode, None)
        if found.addresses is not None:
            return Result(found, mode, _count_few(searcher, found.addresses))
        return Result(found, mode, _count_many(searcher, query))


def _count_few(searcher: Searcher, addresses: Sequence[DocAddress]) -> Counts:
    """Return the counts of the values of documents, each read by itself."""
    documents = [searcher.doc(address) for address in addresses]
    counts: dict[str, Counter[Any]] = {
        field: Counter(value for document in documents for value in document.get_all(field))
        for field in FACETS
    }
    return {**counts, "in_stock": Counter(map(bool, searcher.fast_field_values("in_stock", [*addresses])))}


def _count_many(searcher: Searcher, query: Query) -> Counts:
    terms: dict[str, Any] = {
        field: {"terms": {"field": field, "size": 4 * size, "segment_size": COUNTED_VALUES}}
        for field, size in FACETS.items()
    }
    terms["in_stock"] = {"terms": {"field": "in_stock"}}
    found: Any = searcher.aggregate(query, terms)
    return {
        field: {bucket["key"]: int(bucket["doc_count"]) for bucket in found[field]["buckets"]}
        for field in terms
    }


async def search_products(products: FreshReader, request: protocol.SearchProductsRequest) -> bytes:
    """Respond with a page of the products that are found, and on the first one with facets."""
    trees, stocks = products.others
    index: IndexFollower = products.index
    words = read_words("query", request.query)
    paged_list = PagedList.of(products, request, _identify(request))
    shown = ShownDocuments.parse(paged_list.read_token())
    filters = _list_filters(index.index, request)
    await products.wait_until_fresh()
    children, *_ = await asyncio.gather(  # sent together, so they take one round trip
        read_children(trees) if request.category_id else _read_nothing(),
        stocks.read() if request.in_stock_only else _read_nothing(),
        index.check_complete(products, needs_flag=request.in_stock_only),
    )
    if request.category_id:
        below = list(list_subtree(children, request.category_id))
        if not below:
            raise CATEGORY_NOT_FOUND.error(request.category_id)
        filters.append((Occur.Must, Query.const_score_query(index.index.filter_numbered(below), 0.0)))
    await index.wait_until_fresh(products, needs_flag=request.in_stock_only)
    count = min(get_size(request), MAX_RESULTS - len(shown.hashes))
    sorting = SORTINGS.get(request.sort, Sorting())
    result = await index.search(Search(index.index, words, filters, sorting, shown, count).run)
    views, last = await _read_views(products, index.index, result)
    token = ""
    has_more = last < len(result.found.hashes) or result.found.has_more
    if has_more and len(shown.hashes) + last < MAX_RESULTS:
        token = paged_list.build_page((), shown.add(result.found.hashes[:last], result.mode)).next_page_token
    products.views.age.include_unknown()  # the index may be a moment behind the views
    rest = protocol.SearchProductsResponse(
        total_count=result.found.total, facets=_build_facets(result), corrected=result.mode == CORRECTED
    )
    token_field = encode_field(NEXT_PAGE_TOKEN, token.encode()) if token else b""
    return encode_repeated(ITEMS, views) + token_field + rest.SerializeToString()


async def _read_nothing() -> Children:
    return {}


def _identify(request: protocol.SearchProductsRequest) -> str:
    """Return what names the search in page tokens: everything but page and freshness."""
    search = protocol.SearchProductsRequest()
    search.CopyFrom(request)
    for field in ("page_size", "page_token", "at_least_as_fresh"):
        search.ClearField(field)
    return search.SerializeToString(deterministic=True).hex()


def _list_filters(index: SearchIndex, request: protocol.SearchProductsRequest) -> list[Clause]:
    schema, filters = index.schema, list[Clause]()
    if request.brands:
        filters.append(filter_values(schema, "brand", request.brands))
    filters += [filter_attribute(schema, each.name, each.values) for each in request.attributes]
    if request.HasField("min_price"):
        filters.append(filter_price(schema, request.min_price, is_lower=True))
    if request.HasField("max_price"):
        filters.append(filter_price(schema, request.max_price, is_lower=False))
    if currency := read_currency(request):
        filters.append(filter_values(schema, "currency", [currency]))
    if request.in_stock_only:
        filters.append(filter_in_stock(schema))
    return filters


async def _read_views(products: FreshReader, index: SearchIndex, result: Result) -> tuple[list[bytes], int]:
    """Return the views that exist and fit into a response, and the number of documents up to the last one."""
    found = [(position, index.ids.get(each)) for position, each in enumerate(result.found.hashes, 1)]
    known = [(position, view_id) for position, view_id in found if view_id is not None]
    views: list[bytes] = []
    budget, last = products.views.create_budget(), 0
    while known:
        count = budget.plan_read(len(known))
        chunk = known[:count]
        for (position, _), data in zip(
            chunk, await products.get_all([view_id for _, view_id in chunk]), strict=True
        ):
            if isinstance(data, bytes):
                if not budget.take(len(data)):
                    return views, last
                views.append(data)
            last = position
        del known[:count]
    return views, len(result.found.hashes)


def _build_facets(result: Result) -> protocol.Facets | None:
    if result.facets is None:
        return None
    counted = {field: _select_highest(result.facets[field], size) for field, size in FACETS.items()}
    facets = protocol.Facets(in_stock=result.facets["in_stock"].get(1, 0))
    for value, count in counted["brand"]:
        facets.brands.add(brand=value, count=count)
    for value, count in counted["category"]:
        facets.categories.add(category_id=value, count=count)
    for text, count in counted["attribute"]:
        name, _, value = text.partition(SEPARATOR)
        facets.attributes.add(name=name, value=value, count=count)
    return facets


def _select_highest(counts: Mapping[str, int], size: int) -> list[tuple[str, int]]:
    """Return the values with the highest counts, the highest first."""
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:size]


async def suggest_products(products: FreshReader, request: protocol.SuggestProductsRequest) -> bytes:
    """Respond with words of the index that begin with the last word of the request."""
    index: IndexFollower = products.index
    read_words("prefix", request.prefix)
    *before, last = split_words(request.prefix)
    if len(last) < MIN_PREFIX:
        raise _invalid("prefix", f"needs {MIN_PREFIX} letters of its last word")
    await products.wait_until_fresh()
    await index.check_complete(products)
    await index.wait_until_fresh(products)
    size = request.max_suggestions or DEFAULT_SUGGESTIONS
    counts = await index.search(partial(_complete, index.index, before, last, size))
    products.views.age.include_unknown()
    suggestions = [
        protocol.Suggestion(query=" ".join((*before, word)), count=count) for word, count in counts
    ]
    return protocol.SuggestProductsResponse(suggestions=suggestions).SerializeToString()


def _complete(index: SearchIndex, before: Sequence[str], last: str, size: int) -> list[tuple[str, int]]:
    terms = [(Occur.Must, Query.term_query(index.schema, "words", word, "basic")) for word in before]
    query = Query.boolean_query(terms) if terms else Query.all_query()
    counts = index.searcher.terms_with_prefix("words", last, query, COUNTED_WORDS)
    return [(word, count) for word, count in counts if count and word not in before][:size]
