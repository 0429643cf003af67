"""The index of published products: fields, weights, and the queries for words and filters."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from diptych.catalogue.v1.types_pb2 import CategoryTree, Product
from diptych.inventory.v1.types_pb2 import Stock
from google.type.money_pb2 import Money
from tantivy import FieldType, Occur, Query, Schema, SchemaBuilder

from contracts.money import to_nanos
from contracts.view_layout import View
from query_server.contexts.catalogue.tree import TREE_ID, TREES, find_children, list_subtree
from query_server.search.definition import Document, FlagSource, IndexDefinition, Numbering
from query_server.search.index import RANKS, make_sort_key
from query_server.search.text import MAX_PREFIX, list_prefixes, normalise, split_words, stem
from query_server.timestamps import to_nanoseconds

VERSION = "1"
"""Of the fields and weights. Servers with different ones rank differently; a change needs a new version."""
TITLE, BRAND, ATTRIBUTE, PREFIX, DESCRIPTION = 8.0, 6.0, 4.0, 2.0, 1.0
"""The score of a word: that of the best place where a product has it. PREFIX is for the beginning of one."""
PLACES = (
    *(("title", TITLE), ("brand_words", BRAND)),
    *(("attribute_words", ATTRIBUTE), ("description", DESCRIPTION)),
)
"""The fields of a document with words, and the scores."""
CORRECTED = 2.0
"""The score of a word with a typing error."""
PHRASE, WHOLE_TITLE = 8.0, 16.0
"""Added if the words follow each other in the title, and if they are all of it."""
MIN_CORRECTED = 4
"""Letters of a word that may have a typing error."""
STOP_WORDS = frozenset(
    ["a", "an", "and", "at", "by", "for", "from", "in", "of", "on", "or", "the", "to", "with"]
)
"""Left out of searches that have other words."""
MICROS_DIGITS, NANOS_DIGITS = 17, 21
SEPARATOR = "\x1f"
"""Between an attribute's name and value; no text of a product has it."""

PRODUCTS, STOCKS = View.of(Product), View.of(Stock)
CLOCKS_DIFFER = timedelta(seconds=1)
"""The time by which a price is quoted early: its time is of the database's clock, which may be ahead of this
server's, and a price that was just set is in force."""


def find_price(product: Product, now: datetime) -> Money | None:
    """Return the last price whose time has come, or comes within CLOCKS_DIFFER; None before the first one."""
    nanos = _to_nanos(now + CLOCKS_DIFFER)
    prices = [each.amount for each in product.prices if to_nanoseconds(each.effective_from) <= nanos]
    return prices[-1] if prices else None


def _to_nanos(time: datetime) -> int:
    return int(time.timestamp() * 1_000_000) * 1_000


def find_next_change(product: Product, now: datetime) -> float | None:
    """Return the time, in seconds since 1970, at which `find_price` has another result; None for never."""
    nanos = _to_nanos(now + CLOCKS_DIFFER)
    later = [at for each in product.prices if (at := to_nanoseconds(each.effective_from)) > nanos]
    return min(later) / 1e9 - CLOCKS_DIFFER.total_seconds() + 1e-3 if later else None


def add_fields(builder: SchemaBuilder) -> None:
    builder.add_text_field("title", tokenizer_name="stems", index_option="position")
    for name in ("brand_words", "attribute_words", "description"):
        builder.add_text_field(name, tokenizer_name="stems", index_option="basic")
    builder.add_text_field("whole_title", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("words", tokenizer_name="words", index_option="basic")
    builder.add_text_field("prefixes", tokenizer_name="spaced", index_option="basic")
    for name in ("brand", "category", "attribute"):  # stored for facets of few products
        builder.add_text_field(name, tokenizer_name="raw", index_option="basic", fast=True, stored=True)
    for name in ("currency", "price", "newest"):
        builder.add_text_field(name, tokenizer_name="raw", index_option="basic", fast=True)
    for name in ("units", "nanos", "units_up"):  # the last are the units, rounded up
        builder.add_integer_field(name, indexed=True, fast=True)
    builder.add_boolean_field("in_stock", indexed=True, fast=True)


def make_document(data: bytes, in_stock: bool, now: float) -> Document | None:
    """Return the document of a product; None unless it is published."""
    product = Product.FromString(data)
    if product.state != Product.STATE_PUBLISHED:
        return None
    details, time = product.details, datetime.fromtimestamp(now, UTC)
    title, brand = normalise(details.title), normalise(details.brand)
    values = normalise(" ".join(each.value for each in details.attributes))
    short = " ".join((title, brand, values))
    title_words = split_words(details.title)
    fields = {
        "title": title,
        "whole_title": " ".join(map(stem, title_words)),
        "brand_words": brand,
        "attribute_words": values,
        "description": normalise(details.description),
        "words": short,
        "prefixes": " ".join(sorted(set(list_prefixes(split_words(short))))),
        "attribute": [f"{each.name}{SEPARATOR}{each.value}" for each in details.attributes],
        "newest": make_sort_key(product.publish_time.ToMicroseconds(), MICROS_DIGITS, product.sku),
        "in_stock": in_stock,
    }
    if details.brand:
        fields["brand"] = details.brand
    if product.category_id:
        fields["category"] = product.category_id
    price = find_price(product, time)
    if price is not None:
        fields["currency"] = price.currency_code
        fields["units"], fields["nanos"] = int(price.units), int(price.nanos)
        fields["units_up"] = int(price.units) + bool(price.nanos)
        fields["price"] = make_sort_key(to_nanos(price), NANOS_DIGITS, product.sku)
    amount = f"{price.currency_code} {to_nanos(price)}" if price is not None else ""
    return Document(
        fields,
        rank=max(1 - len(title_words) / RANKS, 0),
        check=f"{product.sku} {product.version} {in_stock} {amount}",
        next_change=find_next_change(product, time),
    )


def read_stock(data: bytes) -> tuple[str, bool]:
    """Return the sku of a stock, and whether pieces are available."""
    stock = Stock.FromString(data)
    return stock.sku, stock.available > 0


def list_categories(tree: bytes) -> list[str]:
    """Return the ids of all categories, each before those below it, so that a subtree is together."""
    children = find_children(tree)
    tops = [each.category_id for each in CategoryTree.FromString(tree).categories if not each.parent_id]
    return [below for top in tops for below in list_subtree(children, top)]


INDEX = IndexDefinition(
    PRODUCTS,
    VERSION,
    add_fields,
    make_document,
    FlagSource(STOCKS, read_stock),
    Numbering("category", TREES, TREE_ID, list_categories),
)


def _score(query: Query, score: float) -> Query:
    return Query.const_score_query(query, score)


def _filter(query: Query) -> tuple[Occur, Query]:
    return Occur.Must, _score(query, 0.0)


def _find_word(schema: Schema, word: str, *, is_last: bool) -> Query:
    queries = [_score(Query.term_query(schema, field, stem(word), "basic"), score) for field, score in PLACES]
    if is_last:
        queries.append(_score(Query.term_query(schema, "prefixes", word[:MAX_PREFIX], "basic"), PREFIX))
    return Query.disjunction_max_query(queries)


def list_query_words(text: str) -> list[str]:
    """Return the words of a search; stop words only if it has no others."""
    words = split_words(text)
    return [word for word in words if word not in STOP_WORDS] or words


def find_words(schema: Schema, words: Sequence[str]) -> list[tuple[Occur, Query]]:
    """Return the query for products that have all of these words, the last one perhaps as a beginning."""
    last = len(words) - 1
    queries = [
        (Occur.Must, _find_word(schema, word, is_last=position == last))
        for position, word in enumerate(words)
    ]
    stems: list[str | tuple[int, str]] = list(map(stem, words))
    if len(words) > 1:
        phrase = Query.phrase_query(schema, "title", stems)
        queries.append((Occur.Should, _score(phrase, PHRASE)))
    whole = Query.term_query(schema, "whole_title", " ".join(map(str, stems)), "basic")
    return [*queries, (Occur.Should, _score(whole, WHOLE_TITLE))]


def find_corrected_words(schema: Schema, words: Sequence[str]) -> list[tuple[Occur, Query]]:
    """Return the query for products that have all of these words, one of them with a typing error."""
    exact = [_find_word(schema, word, is_last=False) for word in words]
    variants = []
    for position, word in enumerate(words):
        if len(word) >= MIN_CORRECTED:
            corrected = _score(Query.fuzzy_term_query(schema, "words", word, 1, True), CORRECTED)
            parts = [*exact[:position], corrected, *exact[position + 1 :]]
            variants.append(Query.boolean_query([(Occur.Must, part) for part in parts]))
    return [(Occur.Must, Query.disjunction_max_query(variants) if variants else Query.empty_query())]


def filter_values(schema: Schema, field: str, values: Sequence[str]) -> tuple[Occur, Query]:
    return _filter(Query.term_set_query(schema, field, values))


def filter_attribute(schema: Schema, name: str, values: Iterable[str]) -> tuple[Occur, Query]:
    return filter_values(schema, "attribute", [f"{name}{SEPARATOR}{value}" for value in values])


def filter_in_stock(schema: Schema) -> tuple[Occur, Query]:
    return _filter(Query.term_query(schema, "in_stock", True))


def filter_price(schema: Schema, bound: Money, *, is_lower: bool) -> tuple[Occur, Query]:
    """Return the filter for prices from a bound on, or up to it; the bound included."""

    def compare(field: str, value: int) -> Query:
        lower, upper = (value, None) if is_lower else (None, value)
        return Query.range_query(schema, field, FieldType.Integer, lower, upper)

    if not bound.nanos:  # one range is faster than several
        return _filter(compare("units" if is_lower else "units_up", bound.units))
    beyond = compare("units", bound.units + (1 if is_lower else -1))
    same = Query.range_query(schema, "units", FieldType.Integer, bound.units, bound.units)
    at = Query.boolean_query([(Occur.Must, same), (Occur.Must, compare("nanos", bound.nanos))])
    return _filter(Query.boolean_query([(Occur.Should, beyond), (Occur.Should, at)]))
