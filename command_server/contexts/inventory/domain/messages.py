"""What can be asked of inventory, and what can happen in it."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class ReservationLine:
    """Pieces of a sku in a warehouse."""

    sku: str
    warehouse_id: str
    quantity: int


# Commands: what can be asked.


@dataclass(frozen=True, slots=True)
class RegisterProduct:
    """Make a sku known."""

    sku: str
    title: str
    reorder_point: int


@dataclass(frozen=True, slots=True)
class ReceiveStock:
    """Take a delivery in."""

    sku: str
    warehouse_id: str
    quantity: int
    purchase_order: str
    delivery_note: str


@dataclass(frozen=True, slots=True)
class ReserveStock:
    """Reserve all of these lines, or nothing."""

    reservation_id: str
    lines: tuple[ReservationLine, ...]
    deadline: datetime


@dataclass(frozen=True, slots=True)
class FirmReservation:
    """Let a reservation stand without a deadline."""

    reservation_id: str


@dataclass(frozen=True, slots=True)
class ReleaseReservation:
    """Give back what is reserved."""

    reservation_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class CommitReservation:
    """Let the reserved goods leave."""

    reservation_id: str


@dataclass(frozen=True, slots=True)
class ExpireReservation:
    """Release a reservation whose deadline has passed."""

    reservation_id: str


@dataclass(frozen=True, slots=True)
class TransferStock:
    """Send stock to another warehouse."""

    transfer_id: str
    sku: str
    from_warehouse_id: str
    to_warehouse_id: str
    quantity: int


@dataclass(frozen=True, slots=True)
class CompleteTransfer:
    """Note that stock in transit has arrived."""

    transfer_id: str


@dataclass(frozen=True, slots=True)
class AdjustStock:
    """Correct how much is on hand to what was counted."""

    sku: str
    warehouse_id: str
    counted: int
    reason: str


@dataclass(frozen=True, slots=True)
class SetReorderPoint:
    """Set at how much an alert is raised."""

    sku: str
    warehouse_id: str
    reorder_point: int


@dataclass(frozen=True, slots=True)
class DiscontinueProduct:
    """End a product."""

    sku: str


# Events: what can happen.


@dataclass(frozen=True, slots=True)
class ProductRegistered:
    """A product became known."""

    sku: str
    title: str
    reorder_point: int
    registered_at: datetime
    product_id: str


@dataclass(frozen=True, slots=True)
class WarehouseStocked:
    """A warehouse holds a product for the first time."""

    sku: str
    warehouse_id: str
    stocked_at: datetime


@dataclass(frozen=True, slots=True)
class ProductDiscontinued:
    """A product came to its end."""

    sku: str
    discontinued_at: datetime


@dataclass(frozen=True, slots=True)
class StockOpened:
    """A product's stock in a warehouse began, empty."""

    sku: str
    warehouse_id: str
    reorder_point: int
    opened_at: datetime
    stock_id: str


@dataclass(frozen=True, slots=True)
class StockReceived:
    """A delivery came in."""

    sku: str
    warehouse_id: str
    quantity: int
    purchase_order: str
    delivery_note: str
    on_hand: int
    reserved: int
    received_at: datetime


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
    """Reserved pieces were given back."""

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
    """Pieces are on their way from another warehouse."""

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
    """How much is on hand was corrected."""

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
class StockDiscontinued:
    """The product of a stock came to its end: no more alerts."""

    sku: str
    warehouse_id: str
    discontinued_at: datetime


@dataclass(frozen=True, slots=True)
class ReorderAlertRaised:
    """What is available fell to the reorder point."""

    sku: str
    warehouse_id: str
    available: int
    reorder_point: int
    raised_at: datetime


@dataclass(frozen=True, slots=True)
class ReorderAlertCleared:
    """What is available is above the reorder point again, or the product came to its end."""

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


@dataclass(frozen=True, slots=True)
class ReservationMade:
    """Stock was reserved."""

    reservation_id: str
    lines: tuple[ReservationLine, ...]
    deadline: datetime
    made_at: datetime


@dataclass(frozen=True, slots=True)
class ReservationFirmed:
    """A reservation was made firm."""

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
    """The goods of a reservation left."""

    reservation_id: str
    committed_at: datetime


@dataclass(frozen=True, slots=True)
class ReservationExpired:
    """A reservation was released since its deadline had passed."""

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
