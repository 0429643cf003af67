"""Commands and events of inventory's aggregates."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Annotated

from command_server.kernel.field_hints import FieldRule
from command_server.kernel.field_rules import Id, at_least, at_most, between, length
from command_server.kernel.money import Limit

MAX_LINES = 100
"""Maximum number of lines of a reservation."""
Sku = Annotated[str, length(1, 64)]
DocumentNumber = Annotated[str, length(1, 64)]
Count = Annotated[int, between(0, 10**9)]
Quantity = Annotated[int, between(1, 10**6)]
"""The pieces of one delivery, reservation line or transfer."""


class ReceiptReason(Enum):
    """Why pieces were added to a stock, with the numbers of the proto."""

    UNSPECIFIED = 0
    """Recorded before receipts had reasons: `purchase_order` is a text of the caller."""
    RETURN = 1
    OPENING = 2
    PRODUCTION = 3
    PURCHASE = 4


OWN_REASONS = (ReceiptReason.RETURN, ReceiptReason.OPENING, ReceiptReason.PRODUCTION)
"""The reasons of receipts without a purchase order."""
OwnReason = Annotated[
    ReceiptReason, FieldRule(OWN_REASONS.__contains__, "must be RETURN, OPENING or PRODUCTION")
]


@dataclass(frozen=True, slots=True)
class ReorderTerms:
    """What is ordered from whom when a stock has a reorder alert."""

    supplier_id: Id
    quantity: Quantity
    unit_price: Limit


@dataclass(frozen=True, slots=True)
class ReservationLine:
    """A quantity of a sku in a warehouse."""

    sku: Sku
    warehouse_id: Id
    quantity: Quantity


# Commands


@dataclass(frozen=True, slots=True)
class RegisterProduct:
    """Register a product under its sku."""

    sku: Sku
    title: Annotated[str, length(1, 200)]
    reorder_point: Count


@dataclass(frozen=True, slots=True)
class ReceiveStock:
    """Record pieces that arrive in a warehouse without a purchase order."""

    sku: Sku
    warehouse_id: Id
    quantity: Quantity
    reason: OwnReason
    delivery_note: DocumentNumber
    purchase_order: Annotated[str, length(0, 0)] = ""
    """Never set: earlier releases had a text of the caller here."""


@dataclass(frozen=True, slots=True)
class ReserveStock:
    """Reserve all lines or none."""

    reservation_id: Id
    lines: Annotated[tuple[ReservationLine, ...], at_least(1, "RESERVATION_HAS_NO_LINES"), at_most(MAX_LINES)]
    deadline: datetime


@dataclass(frozen=True, slots=True)
class FirmReservation:
    """Remove the deadline of a reservation."""

    reservation_id: Id


@dataclass(frozen=True, slots=True)
class ReleaseReservation:
    """Make the reserved stock available again."""

    reservation_id: Id
    reason: Annotated[str, length(1, 500)]


@dataclass(frozen=True, slots=True)
class CommitReservation:
    """Remove the reserved stock from its warehouses."""

    reservation_id: Id


@dataclass(frozen=True, slots=True)
class ExpireReservation:
    """Release a reservation whose deadline has passed."""

    reservation_id: Id


@dataclass(frozen=True, slots=True)
class TransferStock:
    """Send stock from one warehouse to another."""

    transfer_id: Id
    sku: Sku
    from_warehouse_id: Id
    to_warehouse_id: Id
    quantity: Quantity


@dataclass(frozen=True, slots=True)
class CompleteTransfer:
    """Record the arrival of stock in transit."""

    transfer_id: Id


@dataclass(frozen=True, slots=True)
class AdjustStock:
    """Correct the quantity on hand to a counted quantity."""

    sku: Sku
    warehouse_id: Id
    counted: Count
    reason: Annotated[str, length(1, 500)]


@dataclass(frozen=True, slots=True)
class SetReorderPoint:
    """Set the available quantity at or below which an alert is raised."""

    sku: Sku
    warehouse_id: Id
    reorder_point: Count


@dataclass(frozen=True, slots=True)
class DiscontinueProduct:
    """Stop deliveries and alerts of a product."""

    sku: Sku


# Events


@dataclass(frozen=True, slots=True)
class ProductRegistered:
    """A product was registered."""

    sku: str
    title: str
    reorder_point: int
    registered_at: datetime
    product_id: str


@dataclass(frozen=True, slots=True)
class WarehouseStocked:
    """A warehouse stocked a product for the first time."""

    sku: str
    warehouse_id: str
    stocked_at: datetime


@dataclass(frozen=True, slots=True)
class ProductDiscontinued:
    """A product was discontinued."""

    sku: str
    discontinued_at: datetime


@dataclass(frozen=True, slots=True)
class StockOpened:
    """The empty stock of a product in a warehouse was created."""

    sku: str
    warehouse_id: str
    reorder_point: int
    opened_at: datetime
    stock_id: str


@dataclass(frozen=True, slots=True)
class StockReceived:
    """A delivery was added to the stock."""

    sku: str
    warehouse_id: str
    quantity: int
    purchase_order: str
    delivery_note: str
    on_hand: int
    reserved: int
    received_at: datetime
    reason: ReceiptReason


@dataclass(frozen=True, slots=True)
class StockReserved:
    """Pieces were reserved."""

    sku: str
    warehouse_id: str
    reservation_id: str
    quantity: int
    on_hand: int
    reserved: int
    reserved_at: datetime


@dataclass(frozen=True, slots=True)
class StockReleased:
    """Reserved pieces became available again."""

    sku: str
    warehouse_id: str
    reservation_id: str
    quantity: int
    on_hand: int
    reserved: int
    released_at: datetime


@dataclass(frozen=True, slots=True)
class StockCommitted:
    """Reserved pieces left the warehouse for good."""

    sku: str
    warehouse_id: str
    reservation_id: str
    quantity: int
    on_hand: int
    reserved: int
    committed_at: datetime


@dataclass(frozen=True, slots=True)
class StockSent:
    """Pieces left for another warehouse."""

    sku: str
    warehouse_id: str
    transfer_id: str
    to_warehouse_id: str
    quantity: int
    on_hand: int
    reserved: int
    sent_at: datetime


@dataclass(frozen=True, slots=True)
class StockExpected:
    """Pieces are in transit from another warehouse."""

    sku: str
    warehouse_id: str
    transfer_id: str
    from_warehouse_id: str
    quantity: int
    in_transit: int
    expected_at: datetime


@dataclass(frozen=True, slots=True)
class StockArrived:
    """Pieces in transit arrived."""

    sku: str
    warehouse_id: str
    transfer_id: str
    quantity: int
    on_hand: int
    reserved: int
    in_transit: int
    arrived_at: datetime


@dataclass(frozen=True, slots=True)
class StockAdjusted:
    """The quantity on hand was corrected."""

    sku: str
    warehouse_id: str
    difference: int
    reason: str
    on_hand: int
    reserved: int
    adjusted_at: datetime


@dataclass(frozen=True, slots=True)
class ReorderPointSet:
    """A reorder point was set."""

    sku: str
    warehouse_id: str
    reorder_point: int
    set_at: datetime


@dataclass(frozen=True, slots=True)
class ReorderTermsSet:
    """Reorder terms were set or removed."""

    sku: str
    warehouse_id: str
    terms: ReorderTerms | None
    set_at: datetime
    set_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StockDiscontinued:
    """The stock's product was discontinued: the stock raises no more alerts."""

    sku: str
    warehouse_id: str
    discontinued_at: datetime


@dataclass(frozen=True, slots=True)
class ReorderAlertRaised:
    """The available quantity fell to the reorder point or below."""

    sku: str
    warehouse_id: str
    available: int
    reorder_point: int
    raised_at: datetime
    purchase_order_id: str
    """Empty if the stock has no reorder terms."""
    terms: ReorderTerms | None
    terms_set_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReorderAlertCleared:
    """The available quantity rose above the reorder point, or the product was discontinued."""

    sku: str
    warehouse_id: str
    available: int
    reorder_point: int
    cleared_at: datetime


@dataclass(frozen=True, slots=True)
class DeliveryReceived:
    """A delivery of a sku to a warehouse was counted."""

    sku: str
    warehouse_id: str
    purchase_order: str
    delivery_note: str
    quantity: int
    received_at: datetime
    reason: ReceiptReason


@dataclass(frozen=True, slots=True)
class ReservationMade:
    """Stock was reserved."""

    reservation_id: str
    lines: tuple[ReservationLine, ...]
    deadline: datetime
    made_at: datetime


@dataclass(frozen=True, slots=True)
class ReservationFirmed:
    """A reservation became firm: its deadline no longer applies."""

    reservation_id: str
    firmed_at: datetime


@dataclass(frozen=True, slots=True)
class ReservationReleased:
    """A reservation was released."""

    reservation_id: str
    reason: str
    released_at: datetime


@dataclass(frozen=True, slots=True)
class ReservationCommitted:
    """The reserved goods left their warehouses."""

    reservation_id: str
    committed_at: datetime


@dataclass(frozen=True, slots=True)
class ReservationExpired:
    """A reservation was released because its deadline had passed."""

    reservation_id: str
    expired_at: datetime


@dataclass(frozen=True, slots=True)
class TransferStarted:
    """Stock left for another warehouse."""

    transfer_id: str
    sku: str
    from_warehouse_id: str
    to_warehouse_id: str
    quantity: int
    started_at: datetime


@dataclass(frozen=True, slots=True)
class TransferCompleted:
    """Stock arrived from another warehouse."""

    transfer_id: str
    completed_at: datetime
