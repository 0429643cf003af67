"""The ledger of a stock: one entry per event; those of movements have a quantity and a reference."""

from typing import Any

from diptych.inventory.v1 import events_pb2 as events
from diptych.inventory.v1 import types_pb2 as views

from contracts.envelope import RecordedEvent
from contracts.events.inventory import EVENTS
from contracts.view_layout import View, index_member
from projector.history import entry_factory, entry_time_reader
from projector.projection import Entry, Projection

VIEW = View.of(views.StockLedger)
KINDS: dict[type[Any], tuple[views.StockMovement.Kind.ValueType, str, str]] = {
    events.StockReceived: (views.StockMovement.KIND_RECEIVED, "quantity", "purchase_order"),
    events.StockReserved: (views.StockMovement.KIND_RESERVED, "quantity", "reservation_id"),
    events.StockReleased: (views.StockMovement.KIND_RELEASED, "quantity", "reservation_id"),
    events.StockCommitted: (views.StockMovement.KIND_COMMITTED, "quantity", "reservation_id"),
    events.StockSent: (views.StockMovement.KIND_SENT, "quantity", "transfer_id"),
    events.StockExpected: (views.StockMovement.KIND_EXPECTED, "quantity", "transfer_id"),
    events.StockArrived: (views.StockMovement.KIND_ARRIVED, "quantity", "transfer_id"),
    events.StockAdjusted: (views.StockMovement.KIND_ADJUSTED, "difference", "reason"),
}
"""Event type to the kind of movement, and the names of its fields for quantity and reference."""


_create_entry = entry_factory(views.StockMovement)


def create_entry(ledger: views.StockLedger, event: RecordedEvent) -> views.StockMovement:
    """Return the entry of an event; its kind is unspecified if the event moves nothing."""
    entry = _create_entry(ledger, event)
    movement: Any = EVENTS.decode(event)
    if type(movement) in KINDS:
        entry.kind, quantity, reference = KINDS[type(movement)]
        entry.sku, entry.warehouse_id = movement.sku, movement.warehouse_id
        entry.quantity = getattr(movement, quantity)
        entry.reference = getattr(movement, reference)
        if isinstance(movement, events.StockReceived):
            entry.receipt_reason = movement.reason
            entry.reference = movement.purchase_order or movement.delivery_note
        if not isinstance(movement, events.StockExpected):
            entry.on_hand, entry.reserved = movement.on_hand, movement.reserved
    return entry


def index_entries(ledger: views.StockLedger) -> list[Entry]:
    return [(VIEW.index("sku", ledger.sku), index_member(0, ledger.stock_id))]


LEDGERS = Projection[views.StockLedger](
    VIEW,
    events=EVENTS,
    indexes=index_entries,
    history=create_entry,
    read_entry_time=entry_time_reader(views.StockMovement),
)


@LEDGERS.on(events.StockOpened)
def opened(ledger: views.StockLedger, event: events.StockOpened) -> None:
    """The view itself has only these fields: everything else is in the entries."""
    ledger.stock_id = event.stock_id
    ledger.sku = event.sku
    ledger.warehouse_id = event.warehouse_id
