"""The view of a product: every field of `diptych.catalogue.v1.Product`, and its history."""

from diptych.catalogue.v1 import events_pb2 as events
from diptych.catalogue.v1 import types_pb2 as views

from contracts.events.catalogue import EVENTS
from contracts.view_layout import View, index_member
from projector.history import create_entry
from projector.projection import Entry, Projection

VIEW = View.of(views.Product)
MAX_PRICES = 32
"""Number of a product's latest prices that its view has."""


def index_entries(product: views.Product) -> list[Entry]:
    """List products together and by state, sorted by drafting; published ones by category and publication."""
    drafted = index_member(product.draft_time.ToMicroseconds(), product.sku)
    state = views.Product.State.Name(product.state)
    entries = [(VIEW.index("all"), drafted), (VIEW.index("state", state), drafted)]
    if product.state == views.Product.STATE_PUBLISHED and product.category_id:
        # The first publication stays, so a product keeps its place in every list that it is in.
        published = index_member(product.publish_time.ToMicroseconds(), product.sku)
        entries.append((VIEW.index("category", product.category_id), published))
    return entries


PRODUCTS = Projection[views.Product](
    VIEW, events=EVENTS, columns=("state", "category_id"), indexes=index_entries, history=create_entry
)


@PRODUCTS.on(events.ProductDrafted)
def drafted(product: views.Product, event: events.ProductDrafted) -> None:
    product.sku = event.sku
    product.state = views.Product.STATE_DRAFT
    product.draft_time.CopyFrom(event.drafted_at)


@PRODUCTS.on(events.DetailsChanged)
def details_changed(product: views.Product, event: events.DetailsChanged) -> None:
    product.details.CopyFrom(event.details)


@PRODUCTS.on(events.PriceSet)
def price_set(product: views.Product, event: events.PriceSet) -> None:
    time = event.effective_from.ToNanoseconds()
    before = [price for price in product.prices if price.effective_from.ToNanoseconds() != time]
    entry = views.ScheduledPrice(amount=event.price, effective_from=event.effective_from)
    prices = sorted([*before, entry], key=lambda price: price.effective_from.ToNanoseconds())
    del product.prices[:]
    product.prices.extend(prices[-MAX_PRICES:])


@PRODUCTS.on(events.CategoryAssigned)
def category_assigned(product: views.Product, event: events.CategoryAssigned) -> None:
    product.category_id = event.category_id


@PRODUCTS.on(events.ProductPublished)
def published(product: views.Product, event: events.ProductPublished) -> None:
    product.state = views.Product.STATE_PUBLISHED
    if not product.HasField("publish_time"):
        product.publish_time.CopyFrom(event.published_at)
    product.ClearField("withdraw_time")


@PRODUCTS.on(events.ProductWithdrawn)
def withdrawn(product: views.Product, event: events.ProductWithdrawn) -> None:
    product.state = views.Product.STATE_WITHDRAWN
    product.withdraw_time.CopyFrom(event.withdrawn_at)
