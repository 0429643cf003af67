"""The stock aggregate: one sku in one warehouse, its quantities and its reorder alert.

The state contains only the sum of all reservations, so its size does not grow with their number. The single
quantities are in the reservation aggregates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID, uuid5

from command_server.contexts.inventory.domain.messages import (
    ReorderAlertCleared,
    ReorderAlertRaised,
    ReorderPointSet,
    ReorderTerms,
    ReorderTermsSet,
    StockAdjusted,
    StockArrived,
    StockCommitted,
    StockDiscontinued,
    StockExpected,
    StockOpened,
    StockReceived,
    StockReleased,
    StockReserved,
    StockSent,
)
from command_server.kernel.decider import Aggregate, Rejected, members

STOCK_IDS = UUID("0d7a6a1f-0a8e-5a0b-9f33-6b8d1c5c2e01")
"""UUID namespace of stock ids. An id is derived from sku and warehouse."""
MAX_PIECES = 10**12
"""Maximum number of pieces on hand and in transit, so that sums over millions of stocks fit 64 bits."""

Movement = (
    StockReceived | StockReserved | StockReleased | StockCommitted | StockSent | StockArrived | StockAdjusted
)
Event = (
    StockOpened
    | Movement
    | StockExpected
    | ReorderPointSet
    | ReorderTermsSet
    | StockDiscontinued
    | ReorderAlertRaised
    | ReorderAlertCleared
)


@dataclass(frozen=True, slots=True)
class Stock:
    """The state of a stock, as far as the rules need it."""

    sku: str = ""
    warehouse_id: str = ""
    on_hand: int = 0
    reserved: int = 0
    in_transit: int = 0
    reorder_point: int = 0
    discontinued: bool = False
    alerted: bool = False
    alerts: int = 0
    """The number of alerts so far."""
    terms: ReorderTerms | None = None
    """What an alert orders."""
    terms_set_by: tuple[str, ...] = ()
    """The persons who set that."""

    @property
    def exists(self) -> bool:
        """Whether the warehouse has ever stocked the sku."""
        return bool(self.sku)

    @property
    def available(self) -> int:
        """The number of pieces on hand that are not reserved."""
        return self.on_hand - self.reserved

    @property
    def is_low(self) -> bool:
        """Whether the stock should have an alert."""
        return not self.discontinued and self.available <= self.reorder_point


def with_alert(stock: Stock, events: Sequence[Event], now: datetime) -> Sequence[Event]:
    """Return the events, followed by an alert event if they make the stock cross its reorder point."""
    after = stock
    for event in events:
        after = evolve(after, event)
    if after.is_low == after.alerted:
        return events
    levels = (after.sku, after.warehouse_id, after.available, after.reorder_point)
    if not after.is_low:
        return [*events, ReorderAlertCleared(*levels, now)]
    order_id = f"reorder-{make_stock_id(after.sku, after.warehouse_id)}-{after.alerts + 1}"
    ordered = (order_id, after.terms, after.terms_set_by) if after.terms else ("", None, ())
    return [*events, ReorderAlertRaised(*levels, now, *ordered)]


def check_available(stock: Stock, sku: str, warehouse_id: str, quantity: int) -> None:
    """Raise Rejected if fewer than `quantity` pieces are available."""
    if quantity > stock.available:
        raise Rejected(
            "STOCK_INSUFFICIENT",
            sku=sku,
            warehouse_id=warehouse_id,
            requested=quantity,
            available=stock.available,
        )


def check_capacity(pieces: int) -> None:
    """Raise Rejected if a stock would have more than MAX_PIECES."""
    if pieces > MAX_PIECES:
        raise Rejected("STOCK_TOO_LARGE", most=MAX_PIECES)


def evolve(stock: Stock, event: Event) -> Stock:
    match event:
        case StockOpened():
            return Stock(event.sku, event.warehouse_id, reorder_point=event.reorder_point)
        case StockArrived():
            arrived = replace(stock, in_transit=event.in_transit)
            return replace(arrived, on_hand=event.on_hand, reserved=event.reserved)
        case StockExpected():
            return replace(stock, in_transit=event.in_transit)
        case ReorderPointSet():
            return replace(stock, reorder_point=event.reorder_point)
        case StockDiscontinued():
            return replace(stock, discontinued=True)
        case ReorderTermsSet():
            return replace(stock, terms=event.terms, terms_set_by=event.set_by)
        case ReorderAlertRaised():
            return replace(stock, alerted=True, alerts=stock.alerts + 1)
        case ReorderAlertCleared():
            return replace(stock, alerted=False)
        case _:
            return replace(stock, on_hand=event.on_hand, reserved=event.reserved)


STOCK = Aggregate("inventory.stock", Stock(), evolve, members(Event))


def make_stock_id(sku: str, warehouse_id: str) -> str:
    return str(uuid5(STOCK_IDS, f"{sku}\n{warehouse_id}"))


def stock_stream(sku: str, warehouse_id: str) -> str:
    return STOCK.stream(make_stock_id(sku, warehouse_id))
