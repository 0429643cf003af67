"""A stock's ledger: an entry for each event, those of movements with what was moved and why."""

from typing import Any

from diptych.inventory.v1 import events_pb2 as events
from diptych.inventory.v1 import types_pb2 as views

from contracts.envelope import RecordedEvent
from contracts.view_layout import View, index_member
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
"""Which kind of movement an event is, and where it says how much and what for."""
BY_NAME = {event.DESCRIPTOR.full_name: event for event in KINDS}


def entry(_: views.StockLedger, event: RecordedEvent) -> views.StockMovement:
    """Return what the ledger tells of an event; no kind where nothing was moved."""
    told = views.StockMovement(version=event.version, actor=event.metadata.get("actor", ""))
    told.record_time.FromDatetime(event.recorded_at)
    if kind := BY_NAME.get(event.type):
        moved = kind.FromString(event.data)
        told.kind, quantity, reference = KINDS[kind]
        told.sku, told.warehouse_id = moved.sku, moved.warehouse_id
        told.quantity = getattr(moved, quantity)
        told.reference = getattr(moved, reference)
        if kind is not events.StockExpected:
            told.on_hand, told.reserved = moved.on_hand, moved.reserved
    return told


def entries(ledger: views.StockLedger) -> list[Entry]:
    """Ledgers are found by sku."""
    return [(VIEW.index("sku", ledger.sku), index_member(0, ledger.stock_id))]


LEDGERS = Projection[views.StockLedger](VIEW, events=[events], indexes=entries, log=entry)


@LEDGERS.on(events.StockOpened)
def began(ledger: views.StockLedger, event: events.StockOpened) -> None:
    """With this a ledger begins; all else is in the entries."""
    ledger.stock_id = event.stock_id
    ledger.sku = event.sku
    ledger.warehouse_id = event.warehouse_id
