"""One sku's stock in one warehouse: how much there is, how much of it is promised, when that is too little.

Its state does not grow with what is reserved: who holds how much, each reservation knows itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID, uuid5

from command_server.contexts.inventory.domain.messages import (
    ReorderAlertCleared,
    ReorderAlertRaised,
    ReorderPointSet,
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
"""The namespace of stocks' ids, which are made of sku and warehouse."""
LARGEST = 10**12
"""Pieces that may be on hand or in transit, so that sums over many stocks fit 64 bits."""

Movement = (
    StockReceived | StockReserved | StockReleased | StockCommitted | StockSent | StockArrived | StockAdjusted
)
Event = (
    StockOpened
    | Movement
    | StockExpected
    | ReorderPointSet
    | StockDiscontinued
    | ReorderAlertRaised
    | ReorderAlertCleared
)


@dataclass(frozen=True, slots=True)
class Stock:
    """A stock as its rules see it."""

    sku: str = ""
    warehouse_id: str = ""
    on_hand: int = 0
    reserved: int = 0
    in_transit: int = 0
    reorder_point: int = 0
    discontinued: bool = False
    alerted: bool = False

    @property
    def exists(self) -> bool:
        """Whether the warehouse has ever held the sku."""
        return bool(self.sku)

    @property
    def available(self) -> int:
        """What is on hand and not reserved."""
        return self.on_hand - self.reserved

    @property
    def low(self) -> bool:
        """Whether an alert should stand."""
        return not self.discontinued and self.available <= self.reorder_point


def with_alert(stock: Stock, events: Sequence[Event], now: datetime) -> Sequence[Event]:
    """Return what happens to a stock, and that its alert is raised or cleared where it comes to that."""
    after = stock
    for event in events:
        after = evolve(after, event)
    if after.low == after.alerted:
        return events
    kind = ReorderAlertRaised if after.low else ReorderAlertCleared
    return [*events, kind(after.sku, after.warehouse_id, after.available, after.reorder_point, now)]


def check_available(stock: Stock, sku: str, warehouse_id: str, quantity: int) -> None:
    """Refuse to take more than is available."""
    if quantity > stock.available:
        raise Rejected(
            "STOCK_INSUFFICIENT",
            sku=sku,
            warehouse_id=warehouse_id,
            requested=quantity,
            available=stock.available,
        )


def check_room(pieces: int) -> None:
    """Refuse more pieces than a stock may hold."""
    if pieces > LARGEST:
        raise Rejected("STOCK_TOO_LARGE", most=LARGEST)


def evolve(stock: Stock, event: Event) -> Stock:
    """Return the stock after an event."""
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
        case ReorderAlertRaised():
            return replace(stock, alerted=True)
        case ReorderAlertCleared():
            return replace(stock, alerted=False)
        case _:
            return replace(stock, on_hand=event.on_hand, reserved=event.reserved)


STOCK = Aggregate("inventory.stock", Stock(), evolve, members(Event))


def stock_id(sku: str, warehouse_id: str) -> str:
    """Return the id of a stock."""
    return str(uuid5(STOCK_IDS, f"{sku}\n{warehouse_id}"))


def stock_stream(sku: str, warehouse_id: str) -> str:
    """Return the name of a stock's stream."""
    return STOCK.stream(stock_id(sku, warehouse_id))
