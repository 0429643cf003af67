"""The independent fold of the catalogue: it finds the last event of a type, and builds the tree from maps.

Rules and projector fold event by event instead, so a mistake that both make does not repeat here.
"""

from collections.abc import Sequence, Set
from datetime import UTC, datetime, timedelta
from typing import Any

from diptych.catalogue.v1 import events_pb2
from diptych.catalogue.v1.types_pb2 import Category, CategoryTree, Product, ProductDetails, ScheduledPrice
from diptych.inventory.v1.types_pb2 import Stock

from contracts.events.catalogue import EVENTS
from contracts.view_layout import View, index_member
from operations.verify.events import describe_all, find_last, get_first, iterate, select
from operations.verify.formats import columns, encode_money, encode_time, list_entries
from operations.verify.model import Aggregate, Event, ProjectionSpec, SearchSpec

PRODUCT, TREE, STOCK = View.of(Product), View.of(CategoryTree), View.of(Stock)
QUOTED_EARLY = timedelta(seconds=1)
"""The time by which a price is in force early for those who read it."""
KEPT_PRICES = 32
STATES: dict[Any, Product.State.ValueType] = {
    events_pb2.ProductDrafted: Product.STATE_DRAFT,
    events_pb2.ProductPublished: Product.STATE_PUBLISHED,
    events_pb2.ProductWithdrawn: Product.STATE_WITHDRAWN,
}


def fold_prices(events: Sequence[Event]) -> list[ScheduledPrice]:
    """Return the latest prices, earliest first: of each time the last one that was set."""
    by_time = {
        message.effective_from.ToNanoseconds(): message for message in iterate(events, events_pb2.PriceSet)
    }
    latest = [by_time[time] for time in sorted(by_time)][-KEPT_PRICES:]
    return [ScheduledPrice(amount=each.price, effective_from=each.effective_from) for each in latest]


def fold_product(events: Sequence[Event]) -> Product:
    """Return the view of a product.

    Raises:
        ValueError: the first event is not the only ProductDrafted.
    """
    first = get_first(events, events_pb2.ProductDrafted)
    if len(select(events, events_pb2.ProductDrafted)) > 1:
        raise ValueError("a product is drafted once")
    last = find_last(events, *STATES)
    details = find_last(events, events_pb2.DetailsChanged)
    assigned = find_last(events, events_pb2.CategoryAssigned)
    published = next(iterate(events, events_pb2.ProductPublished), None)
    return Product(
        sku=first.sku,
        version=len(events),
        state=STATES[type(last)],
        details=details and details.details,
        prices=fold_prices(events),
        category_id=assigned.category_id if assigned else "",
        draft_time=first.drafted_at,
        publish_time=published and published.published_at,
        withdraw_time=last.withdrawn_at if isinstance(last, events_pb2.ProductWithdrawn) else None,
    )


def fold_product_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON."""
    view = fold_product(events)
    return {
        "status": Product.State.Name(view.state).removeprefix("STATE_"),
        "details": encode_details(view.details),
        "prices": [
            {"amount": encode_money(price.amount), "effective_from": encode_time(price.effective_from)}
            for price in view.prices
        ],
        "category_id": view.category_id,
    }


def encode_details(details: ProductDetails) -> dict[str, Any]:
    """Return details as in a snapshot."""
    return {
        **{name: getattr(details, name) for name in ("title", "description", "brand")},
        "attributes": [{"name": each.name, "value": each.value} for each in details.attributes],
        "picture_urls": list(details.picture_urls),
    }


def product_indexes(view: Product) -> list[tuple[str, str]]:
    """Return the index entries of a product: by drafting, and while it is published by publication."""
    indexes = [("all",), ("state", Product.State.Name(view.state))]
    entries = list_entries(PRODUCT, index_member(view.draft_time.ToMicroseconds(), view.sku), *indexes)
    if view.category_id and view.state == Product.STATE_PUBLISHED:
        member = index_member(view.publish_time.ToMicroseconds(), view.sku)
        entries += list_entries(PRODUCT, member, ("category", view.category_id))
    return entries


def read_stock(stock: Stock) -> tuple[str, bool]:
    """Return the sku of a stock, and whether pieces of it are available."""
    return stock.sku, stock.on_hand > stock.reserved


def describe_document(view: Product, in_stock: Set[str], now: datetime) -> str | None:
    """Return what the search index has of a product; None unless it is published."""
    if view.state != Product.STATE_PUBLISHED:
        return None
    limit = now + QUOTED_EARLY
    amount = ""
    for price in view.prices:  # earliest first
        if price.effective_from.ToDatetime(UTC) <= limit:
            nanos = price.amount.units * 10**9 + price.amount.nanos
            amount = f"{price.amount.currency_code} {nanos}"
    return f"{view.sku} {view.version} {view.sku in in_stock} {amount}"


def fold_tree(events: Sequence[Event]) -> CategoryTree:
    """Return the view of the category tree.

    Raises:
        ValueError: a category was added twice, changed before it was added, or is in a cycle.
    """
    added = select(events, events_pb2.CategoryAdded)
    names, parents = ({each.category_id: getattr(each, of) for each in added} for of in ("name", "parent_id"))
    if len(names) < len(added):
        raise ValueError("a category is added once")
    for renamed in iterate(events, events_pb2.CategoryRenamed):
        names[renamed.category_id] = renamed.name
    for moved in iterate(events, events_pb2.CategoryMoved):
        parents[moved.category_id] = moved.parent_id
    if len({*names, *parents, *filter(None, parents.values())}) > len(added):
        raise ValueError("a category that was not added was changed, or has others below it")
    check_reachable(parents)
    categories = [Category(category_id=id_, parent_id=parents[id_], name=names[id_]) for id_ in names]
    return CategoryTree(version=len(events), categories=categories)


def check_reachable(parents: dict[str, str]) -> None:
    """Check that every category is below the top.

    Raises:
        ValueError: one is in a cycle.
    """
    reached, unreached = {""}, set(parents)
    while found := {id_ for id_ in unreached if parents[id_] in reached}:
        reached |= found
        unreached -= found
    if unreached:
        raise ValueError(f"categories in a cycle: {', '.join(sorted(unreached))}")


def fold_tree_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON."""
    names = ("category_id", "parent_id", "name")
    return {
        "categories": [{name: getattr(each, name) for name in names} for each in fold_tree(events).categories]
    }


AGGREGATES = (
    Aggregate(
        "catalogue.product",
        events=EVENTS,
        snapshot=fold_product_snapshot,
        projections=(
            ProjectionSpec(
                PRODUCT,
                fold=fold_product,
                columns=columns("state", "category_id"),
                indexes=product_indexes,
                history=describe_all,
                search=SearchSpec(STOCK, read_stock, describe_document),
            ),
        ),
    ),
    Aggregate(
        "catalogue.category_tree",
        events=EVENTS,
        snapshot=fold_tree_snapshot,
        projections=(ProjectionSpec(TREE, fold=fold_tree),),
    ),
)
