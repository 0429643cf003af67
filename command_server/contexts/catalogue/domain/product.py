"""The product aggregate: drafted under its sku, described and priced, published and withdrawn.

docs/catalogue.md has the state diagram; a test compares it with these rules.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any

from command_server.contexts.catalogue.domain import category_tree
from command_server.contexts.catalogue.domain.category_tree import CATEGORY_TREE
from command_server.contexts.catalogue.domain.details import clean_details
from command_server.contexts.catalogue.domain.messages import (
    NO_DETAILS,
    AssignCategory,
    CategoryAssigned,
    ChangeDetails,
    DetailsChanged,
    DraftProduct,
    PriceSet,
    ProductDetails,
    ProductDrafted,
    ProductPublished,
    ProductWithdrawn,
    PublishProduct,
    SetPrice,
    WithdrawProduct,
)
from command_server.contexts.catalogue.domain.prices import (
    Prices,
    ScheduledPrice,
    check_price,
    find_price,
    with_price,
)
from command_server.kernel.decider import Aggregate, Decider, NotFound, Rejected, members, one_stream
from command_server.kernel.field_rules import check_fields

Command = DraftProduct | ChangeDetails | SetPrice | PublishProduct | WithdrawProduct
Event = ProductDrafted | DetailsChanged | PriceSet | CategoryAssigned | ProductPublished | ProductWithdrawn

# State


class Status(Enum):
    """Statuses of a product; NONE before it is drafted."""

    NONE = "NONE"
    DRAFT = "DRAFT"
    PUBLISHED = "PUBLISHED"
    WITHDRAWN = "WITHDRAWN"


@dataclass(frozen=True, slots=True)
class Product:
    """The state of a product, as far as the rules need it."""

    status: Status = Status.NONE
    details: ProductDetails = NO_DETAILS
    prices: Prices = ()
    category_id: str = ""


# Decide


def decide(command: Command, product: Product, now: datetime) -> Sequence[Event]:
    """Return the events that follow from a command, none if it changes nothing.

    Raises:
        Rejected: a rule does not allow the command.
    """
    check_fields(command)
    match command, product.status:
        case DraftProduct(sku), Status.NONE:
            return [ProductDrafted(sku, drafted_at=now)]
        case DraftProduct(), _:
            return []
        case _, Status.NONE:
            raise NotFound("PRODUCT_NOT_FOUND", sku=command.sku)
        case ChangeDetails(), _:
            return change_details(command, product, now)
        case SetPrice(), _:
            return set_price(command, product, now)
        case PublishProduct(sku), Status.DRAFT | Status.WITHDRAWN:
            check_complete(product, sku, now)
            return [ProductPublished(sku, published_at=now)]
        case WithdrawProduct(sku), Status.PUBLISHED:
            return [ProductWithdrawn(sku, withdrawn_at=now)]
        case WithdrawProduct(sku), Status.DRAFT:
            raise Rejected("PRODUCT_NOT_PUBLISHED", sku=sku)
    return []  # published or withdrawn already


def change_details(command: ChangeDetails, product: Product, now: datetime) -> Sequence[Event]:
    """Return the event of new details, or none if they are the same."""
    details = clean_details(command.details)
    if product.status is Status.PUBLISHED and not details.title:
        raise Rejected("PRODUCT_NEEDS_TITLE", sku=command.sku)
    return [] if details == product.details else [DetailsChanged(command.sku, details, changed_at=now)]


def set_price(command: SetPrice, product: Product, now: datetime) -> Sequence[Event]:
    """Return the event of a price, or none if it is set already."""
    entry = ScheduledPrice(command.price, command.effective_from or now)
    if command.effective_from is None and find_price(product.prices, now) == entry.amount:
        return []
    if entry in product.prices:
        return []
    check_price(product.prices, entry, now)
    return [PriceSet(command.sku, entry.amount, entry.effective_from, set_at=now)]


def check_complete(product: Product, sku: str, now: datetime) -> None:
    """Raise Rejected unless the product has a title, and a price that is in force."""
    if not product.details.title:
        raise Rejected("PRODUCT_NEEDS_TITLE", sku=sku)
    if find_price(product.prices, now) is None:
        raise Rejected("PRODUCT_NEEDS_PRICE", sku=sku)


def list_streams(command: AssignCategory) -> Sequence[str]:
    """A product is assigned to a category of the tree, which the command only reads."""
    product = PRODUCT.stream(command.sku)
    return (product, category_tree.STREAM) if command.category_id else (product,)


def assign(
    command: AssignCategory, states: Mapping[str, Any], now: datetime
) -> Mapping[str, Sequence[Event]]:
    """Return the event of an assignment, or none if the product is in that category."""
    check_fields(command)
    stream, *tree_streams = states
    product: Product = states[stream]
    if product.status is Status.NONE:
        raise NotFound("PRODUCT_NOT_FOUND", sku=command.sku)
    for name in tree_streams:
        states[name].get(command.category_id)
    if command.category_id == product.category_id:
        return {}
    return {stream: [CategoryAssigned(command.sku, command.category_id, assigned_at=now)]}


# Evolve


def evolve(product: Product, event: Event) -> Product:
    match event:
        case ProductDrafted():
            return replace(product, status=Status.DRAFT)
        case DetailsChanged():
            return replace(product, details=event.details)
        case PriceSet():
            entry = ScheduledPrice(event.price, event.effective_from)
            return replace(product, prices=with_price(product.prices, entry))
        case CategoryAssigned():
            return replace(product, category_id=event.category_id)
        case ProductPublished():
            return replace(product, status=Status.PUBLISHED)
        case ProductWithdrawn():
            return replace(product, status=Status.WITHDRAWN)


PRODUCT = Aggregate("catalogue.product", Product(), evolve, members(Event))
DECIDER = one_stream(PRODUCT, Command, key="sku", decide=decide)
ASSIGNMENT_DECIDER = Decider((AssignCategory,), (PRODUCT, CATEGORY_TREE), "sku", list_streams, assign)
