"""Commands and events of the catalogue's aggregates."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from command_server.kernel.field_rules import Id, OptionalId, at_most, length
from command_server.kernel.money import Limit, Money

MAX_ATTRIBUTES = 50
MAX_PICTURES = 20
CategoryName = Annotated[str, length(1, 100)]


@dataclass(frozen=True, slots=True)
class Attribute:
    """A property of a product."""

    name: Annotated[str, length(1, 50)]
    value: Annotated[str, length(1, 200)]


@dataclass(frozen=True, slots=True)
class ProductDetails:
    """How a product is presented."""

    title: Annotated[str, length(0, 200)] = ""
    description: Annotated[str, length(0, 5_000)] = ""
    brand: Annotated[str, length(0, 100)] = ""
    attributes: Annotated[tuple[Attribute, ...], at_most(MAX_ATTRIBUTES)] = ()
    picture_urls: Annotated[tuple[Annotated[str, length(1, 500)], ...], at_most(MAX_PICTURES)] = ()


NO_DETAILS = ProductDetails()

# Commands


@dataclass(frozen=True, slots=True)
class DraftProduct:
    """Begin a product."""

    sku: Id


@dataclass(frozen=True, slots=True)
class ChangeDetails:
    """Replace all details of a product."""

    sku: Id
    details: ProductDetails


@dataclass(frozen=True, slots=True)
class SetPrice:
    """Set the price from a time on; None means now."""

    sku: Id
    price: Limit
    effective_from: datetime | None


@dataclass(frozen=True, slots=True)
class AssignCategory:
    """Assign a product to a category; an empty id means none."""

    sku: Id
    category_id: OptionalId


@dataclass(frozen=True, slots=True)
class PublishProduct:
    """List a product."""

    sku: Id


@dataclass(frozen=True, slots=True)
class WithdrawProduct:
    """End the listing of a product."""

    sku: Id


@dataclass(frozen=True, slots=True)
class AddCategory:
    """Add a category; an empty parent means the top."""

    category_id: Id
    parent_id: OptionalId
    name: CategoryName


@dataclass(frozen=True, slots=True)
class RenameCategory:
    """Change the name of a category."""

    category_id: Id
    name: CategoryName


@dataclass(frozen=True, slots=True)
class MoveCategory:
    """Move a category with all below it; an empty parent means the top."""

    category_id: Id
    parent_id: OptionalId


# Events


@dataclass(frozen=True, slots=True)
class ProductDrafted:
    """A product was drafted."""

    sku: str
    drafted_at: datetime


@dataclass(frozen=True, slots=True)
class DetailsChanged:
    """The details of a product were replaced."""

    sku: str
    details: ProductDetails
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class PriceSet:
    """A price was set. It replaces one of the same time."""

    sku: str
    price: Money
    effective_from: datetime
    set_at: datetime


@dataclass(frozen=True, slots=True)
class CategoryAssigned:
    """A product was assigned to a category, or to none."""

    sku: str
    category_id: str
    assigned_at: datetime


@dataclass(frozen=True, slots=True)
class ProductPublished:
    """A product was published."""

    sku: str
    published_at: datetime


@dataclass(frozen=True, slots=True)
class ProductWithdrawn:
    """A product was withdrawn."""

    sku: str
    withdrawn_at: datetime


@dataclass(frozen=True, slots=True)
class CategoryAdded:
    """A category was added."""

    category_id: str
    parent_id: str
    name: str
    added_at: datetime


@dataclass(frozen=True, slots=True)
class CategoryRenamed:
    """A category was renamed."""

    category_id: str
    name: str
    renamed_at: datetime


@dataclass(frozen=True, slots=True)
class CategoryMoved:
    """A category was moved, together with all below it."""

    category_id: str
    parent_id: str
    moved_at: datetime
