"""What can be asked of an order, and what can happen to it."""

from dataclasses import dataclass
from datetime import datetime

from command_server.kernel.money import Money


@dataclass(frozen=True, slots=True)
class OrderLine:
    """Some pieces of one article, at the price they were ordered at."""

    sku: str
    title: str
    quantity: int
    unit_price: Money


@dataclass(frozen=True, slots=True)
class ShippingAddress:
    """Where goods go."""

    recipient: str
    address_lines: tuple[str, ...]
    postal_code: str
    locality: str
    region_code: str


@dataclass(frozen=True, slots=True)
class ShippingGroup:
    """Lines that travel together."""

    shipping_group_id: str
    lines: tuple[OrderLine, ...]
    shipping_address: ShippingAddress
    warehouse_id: str


@dataclass(frozen=True, slots=True)
class PersonalData:
    """What an event holds about a person, apart from the rest so that it can be sealed for one person."""

    subject_id: str
    shipping_address: ShippingAddress | None
    sealed: bytes = b""


# Commands: what can be asked.


@dataclass(frozen=True, slots=True)
class PlaceOrder:
    """Begin an order."""

    order_id: str
    customer_id: str
    shipping_groups: tuple[ShippingGroup, ...]
    account_id: str


@dataclass(frozen=True, slots=True)
class AddOrderLine:
    """Order one article more; an empty group is the order's only one."""

    order_id: str
    shipping_group_id: str
    line: OrderLine


@dataclass(frozen=True, slots=True)
class RemoveOrderLine:
    """Order one article less; an empty group is the order's only one."""

    order_id: str
    shipping_group_id: str
    sku: str


@dataclass(frozen=True, slots=True)
class ChangeShippingAddress:
    """Send a group elsewhere; an empty group is the order's only one."""

    order_id: str
    shipping_group_id: str
    shipping_address: ShippingAddress


@dataclass(frozen=True, slots=True)
class HoldOrder:
    """Leave the order as it is until somebody has looked at it."""

    order_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ApproveOrder:
    """Let an order that was held go on."""

    order_id: str


@dataclass(frozen=True, slots=True)
class RejectOrder:
    """End an order that the seller does not want."""

    order_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ConfirmOrder:
    """Promise that the order will be delivered."""

    order_id: str


@dataclass(frozen=True, slots=True)
class ShipOrder:
    """Hand the goods to a carrier."""

    order_id: str
    carrier: str
    tracking_code: str


@dataclass(frozen=True, slots=True)
class DeliverOrder:
    """Note that the goods have arrived."""

    order_id: str


@dataclass(frozen=True, slots=True)
class ReturnOrder:
    """Take the goods back."""

    order_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class CancelOrder:
    """End an order that the customer no longer wants."""

    order_id: str
    reason: str


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

# Events: what can happen.


@dataclass(frozen=True, slots=True)
class PlacedGroup:
    """Lines that travel together, as they were ordered."""

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
    """A group goes elsewhere."""

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
    """The order, which was held, goes on."""

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
    """A carrier has the goods."""

    order_id: str
    carrier: str
    tracking_code: str
    shipped_at: datetime


@dataclass(frozen=True, slots=True)
class OrderDelivered:
    """The customer has the goods."""

    order_id: str
    delivered_at: datetime


@dataclass(frozen=True, slots=True)
class OrderReturned:
    """The seller has the goods again."""

    order_id: str
    reason: str
    returned_at: datetime


@dataclass(frozen=True, slots=True)
class OrderCancelled:
    """The order was cancelled."""

    order_id: str
    reason: str
    cancelled_at: datetime


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
