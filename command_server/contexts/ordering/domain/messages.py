"""Commands and events of the order aggregate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

from command_server.kernel.field_rules import Id, OptionalId, at_least, at_most, between, length, matching
from command_server.kernel.money import Money, Price

MAX_QUOTES = 100
MAX_GROUPS = 10
"""Maximum number of shipping groups of an order."""
Sku = Annotated[str, length(1, 64)]
ShortText = Annotated[str, length(1, 200)]


@dataclass(frozen=True, slots=True)
class OrderLine:
    """A quantity of one article at the ordered unit price."""

    sku: Sku
    title: ShortText
    quantity: Annotated[int, between(1, 10_000)]
    unit_price: Price


@dataclass(frozen=True, slots=True)
class ShippingAddress:
    """A postal address."""

    recipient: ShortText
    address_lines: Annotated[tuple[ShortText, ...], at_least(1), at_most(4)]
    postal_code: Annotated[str, length(0, 20)]
    locality: ShortText
    region_code: Annotated[str, matching("[A-Z]{2}")]


@dataclass(frozen=True, slots=True)
class ShippingGroup:
    """Order lines that are shipped together to one address."""

    shipping_group_id: Id
    lines: Annotated[tuple[OrderLine, ...], at_least(1, "ORDER_HAS_NO_LINES")]
    shipping_address: ShippingAddress
    warehouse_id: Id


@dataclass(frozen=True, slots=True)
class PersonalData:
    """Personal data of an event, in a message of its own so that it can be sealed with one person's key."""

    subject_id: str
    shipping_address: ShippingAddress | None
    sealed: bytes = b""


@dataclass(frozen=True, slots=True)
class Quote:
    """A promise of a price, which another context has signed."""

    sku: str
    price: Money
    customer_id: str
    expires_at: datetime


QuoteText = Annotated[str, length(1, 1_000)]
"""A signed quote, opaque."""
SignedQuotes = Mapping[str, Any]
"""The quotes of a command by their text, each a Quote or an InvalidValue."""

# Commands


@dataclass(frozen=True, slots=True)
class PlaceOrder:
    """Place a new order. Each line has a quote, unless the caller may set prices."""

    order_id: Id
    customer_id: Id
    shipping_groups: Annotated[
        tuple[ShippingGroup, ...],
        at_least(1, "ORDER_HAS_NO_LINES"),
        at_most(MAX_GROUPS, "ORDER_TOO_MANY_GROUPS"),
    ]
    account_id: Id
    quotes: Annotated[tuple[QuoteText, ...], at_most(MAX_QUOTES)] = ()
    scopes: frozenset[str] = frozenset()
    signed_values: SignedQuotes = field(default_factory=dict)

    @property
    def tokens(self) -> Sequence[str]:
        return self.quotes


@dataclass(frozen=True, slots=True)
class AddOrderLine:
    """Add a line to a shipping group; an empty group id means the order's only group.

    The line has a quote, unless the caller may set prices.
    """

    order_id: Id
    shipping_group_id: OptionalId
    line: OrderLine
    quote: Annotated[str, length(0, 1_000)] = ""
    scopes: frozenset[str] = frozenset()
    signed_values: SignedQuotes = field(default_factory=dict)

    @property
    def tokens(self) -> Sequence[str]:
        return (self.quote,) if self.quote else ()


@dataclass(frozen=True, slots=True)
class RemoveOrderLine:
    """Remove a line from a shipping group; an empty group id means the order's only group."""

    order_id: Id
    shipping_group_id: OptionalId
    sku: Sku


@dataclass(frozen=True, slots=True)
class ChangeShippingAddress:
    """Change a shipping group's address; an empty group id means the order's only group."""

    order_id: Id
    shipping_group_id: OptionalId
    shipping_address: ShippingAddress


@dataclass(frozen=True, slots=True)
class HoldOrder:
    """Hold the order for review."""

    order_id: Id
    reason: Annotated[str, length(1, 500)]


@dataclass(frozen=True, slots=True)
class ApproveOrder:
    """Approve a held order, or one that was confirmed without an approval."""

    order_id: Id


@dataclass(frozen=True, slots=True)
class RejectOrder:
    """Reject the order on the seller's behalf."""

    order_id: Id
    reason: Annotated[str, length(1, 500)]


@dataclass(frozen=True, slots=True)
class ConfirmOrder:
    """Confirm that the seller will deliver the order."""

    order_id: Id


@dataclass(frozen=True, slots=True)
class ShipOrder:
    """Hand the goods over to a carrier."""

    order_id: Id
    carrier: Annotated[str, length(1, 100)]
    tracking_code: Annotated[str, length(1, 100)]


@dataclass(frozen=True, slots=True)
class DeliverOrder:
    """Record the arrival of the goods."""

    order_id: Id


@dataclass(frozen=True, slots=True)
class ReturnOrder:
    """Record the return of the goods."""

    order_id: Id
    reason: Annotated[str, length(1, 500)]


@dataclass(frozen=True, slots=True)
class CancelOrder:
    """Cancel the order on the customer's behalf."""

    order_id: Id
    reason: Annotated[str, length(1, 500)]


Edit = AddOrderLine | RemoveOrderLine | ChangeShippingAddress
Command = (
    PlaceOrder
    | Edit
    | HoldOrder
    | ApproveOrder
    | RejectOrder
    | ConfirmOrder
    | ShipOrder
    | DeliverOrder
    | ReturnOrder
    | CancelOrder
)

# Events


@dataclass(frozen=True, slots=True)
class PlacedGroup:
    """A shipping group of a placed order."""

    shipping_group_id: str
    lines: tuple[OrderLine, ...]
    warehouse_id: str
    personal: PersonalData


@dataclass(frozen=True, slots=True)
class OrderPlaced:
    """A customer placed the order."""

    order_id: str
    customer_id: str
    groups: tuple[PlacedGroup, ...]
    total: Money
    account_id: str
    placed_at: datetime


@dataclass(frozen=True, slots=True)
class OrderLineAdded:
    """A line was added to a group."""

    order_id: str
    shipping_group_id: str
    line: OrderLine
    total: Money
    added_at: datetime


@dataclass(frozen=True, slots=True)
class OrderLineRemoved:
    """A line was removed from a group."""

    order_id: str
    shipping_group_id: str
    sku: str
    total: Money
    removed_at: datetime


@dataclass(frozen=True, slots=True)
class ShippingAddressChanged:
    """The address of a shipping group was changed."""

    order_id: str
    shipping_group_id: str
    personal: PersonalData
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class OrderHeld:
    """The order was held for review."""

    order_id: str
    reason: str
    held_at: datetime


@dataclass(frozen=True, slots=True)
class OrderApproved:
    """The order was approved as it is. One that was held is placed again."""

    order_id: str
    approved_at: datetime


@dataclass(frozen=True, slots=True)
class OrderRejected:
    """The seller rejected the order."""

    order_id: str
    reason: str
    rejected_at: datetime


@dataclass(frozen=True, slots=True)
class OrderConfirmed:
    """The seller confirmed the order."""

    order_id: str
    confirmed_at: datetime


@dataclass(frozen=True, slots=True)
class OrderShipped:
    """A carrier took the goods over."""

    order_id: str
    carrier: str
    tracking_code: str
    shipped_at: datetime


@dataclass(frozen=True, slots=True)
class OrderDelivered:
    """The goods arrived."""

    order_id: str
    delivered_at: datetime


@dataclass(frozen=True, slots=True)
class OrderReturned:
    """The goods were returned to the seller."""

    order_id: str
    reason: str
    returned_at: datetime
    customer_id: str


@dataclass(frozen=True, slots=True)
class OrderCancelled:
    """The order was cancelled."""

    order_id: str
    reason: str
    cancelled_at: datetime
    customer_id: str


Event = (
    OrderPlaced
    | OrderLineAdded
    | OrderLineRemoved
    | ShippingAddressChanged
    | OrderHeld
    | OrderApproved
    | OrderRejected
    | OrderConfirmed
    | OrderShipped
    | OrderDelivered
    | OrderReturned
    | OrderCancelled
)
