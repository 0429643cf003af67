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
    history_entries = views.StockMovement(version=event.version, actor=event.metadata.get("actor", ""))
    history_entries.record_time.FromDatetime(event.recorded_at)
    if kind := BY_NAME.get(event.type):
        moved = kind.FromString(event.data)
        history_entries.kind, quantity, reference = KINDS[kind]
        history_entries.sku, history_entries.warehouse_id = moved.sku, moved.warehouse_id
        history_entries.quantity = getattr(moved, quantity)
        history_entries.reference = getattr(moved, reference)
        if kind is not events.StockExpected:
            history_entries.on_hand, history_entries.reserved = moved.on_hand, moved.reserved
    return history_entries


def entries(ledger: views.StockLedger) -> list[Entry]:
    """Ledgers are found by sku."""
    return [(VIEW.index("sku", ledger.sku), index_member(0, ledger.stock_id))]


LEDGERS = Projection[views.StockLedger](VIEW, events=[events], indexes=entries, history=entry)


@LEDGERS.on(events.StockOpened)
def began(ledger: views.StockLedger, event: events.StockOpened) -> None:
    """With this a ledger begins; all else is in the entries."""
    ledger.stock_id = event.stock_id
    ledger.sku = event.sku
    ledger.warehouse_id = event.warehouse_id
