"""The independent folds of inventory.

Stock is a sum of differences here, where rules and projector copy the levels that events carry.
"""

from collections.abc import Sequence
from typing import Any

from diptych.inventory.v1 import events_pb2
from diptych.inventory.v1 import types_pb2 as types

from contracts.events.inventory import EVENTS
from contracts.view_layout import View, index_member
from operations.verify.contexts.inventory.purchase_order import PURCHASE_ORDERS
from operations.verify.events import describe, find_last, get_first, iterate, select
from operations.verify.formats import (
    columns,
    encode_money,
    encode_time,
    has_end_time,
    list_ended,
    list_entries,
)
from operations.verify.model import Aggregate, Event, ProjectionSpec

SUMS: dict[Any, tuple[int, int, int]] = {
    events_pb2.StockReceived: (1, 0, 0),
    events_pb2.StockReserved: (0, 1, 0),
    events_pb2.StockReleased: (0, -1, 0),
    events_pb2.StockCommitted: (-1, -1, 0),
    events_pb2.StockSent: (-1, 0, 0),
    events_pb2.StockExpected: (0, 0, 1),
    events_pb2.StockArrived: (1, 0, -1),
    events_pb2.StockAdjusted: (1, 0, 0),
}
"""The factors with which an event's quantity changes (on hand, reserved, in transit)."""
REFERENCES: dict[Any, str] = {
    events_pb2.StockSent: "transfer_id",
    events_pb2.StockExpected: "transfer_id",
    events_pb2.StockArrived: "transfer_id",
    events_pb2.StockAdjusted: "reason",
}
"""Event to the field of the movement's reference; `reservation_id` for the other events."""

PRODUCT, STOCK, ALERT = View.of(types.Product), View.of(types.Stock), View.of(types.ReorderAlert)
LEDGER, RESERVATION = View.of(types.StockLedger), View.of(types.Reservation)


def _get_quantity(message: Any) -> int:
    return int(message.difference if isinstance(message, events_pb2.StockAdjusted) else message.quantity)


def sum_levels(events: Sequence[Event]) -> tuple[int, int, int]:
    """Return the quantities on hand, reserved and in transit.

    Raises:
        ValueError: an event carries other levels, or a level is impossible.
    """
    on_hand = reserved = in_transit = 0
    for message in iterate(events, *SUMS):
        factors = SUMS[type(message)]
        on_hand += factors[0] * _get_quantity(message)
        reserved += factors[1] * _get_quantity(message)
        in_transit += factors[2] * _get_quantity(message)
        levels = {"on_hand": on_hand, "reserved": reserved, "in_transit": in_transit}
        for name, level in levels.items():
            if name in message.DESCRIPTOR.fields_by_name and getattr(message, name) != level:
                raise ValueError(
                    f"{name} of {message.DESCRIPTOR.name} is {getattr(message, name)}, the sum is {level}"
                )
    if not 0 <= reserved <= on_hand or in_transit < 0:
        raise ValueError(f"impossible levels: {reserved} of {on_hand} reserved, {in_transit} in transit")
    return on_hand, reserved, in_transit


def _find_alert(events: Sequence[Event]) -> tuple[Any, Any]:
    """Return the last raised alert, and the event that cleared it, or None for either."""
    raised = find_last(events, events_pb2.ReorderAlertRaised)
    last = find_last(events, events_pb2.ReorderAlertRaised, events_pb2.ReorderAlertCleared)
    return raised, last if last is not raised else None


def _find_reorder_point(events: Sequence[Event]) -> int:
    last = find_last(events, events_pb2.StockOpened, events_pb2.ReorderPointSet)
    return int(last.reorder_point)


def _find_terms(events: Sequence[Event]) -> Any:
    """Return the reorder terms that apply, or None."""
    last = find_last(events, events_pb2.ReorderTermsSet)
    return last.terms if last is not None and last.HasField("terms") else None


def fold_stock(events: Sequence[Event]) -> types.Stock:
    first = get_first(events, events_pb2.StockOpened)
    on_hand, reserved, in_transit = sum_levels(events)
    raised, cleared = _find_alert(events)
    return types.Stock(
        sku=first.sku,
        version=len(events),
        warehouse_id=first.warehouse_id,
        on_hand=on_hand,
        reserved=reserved,
        available=on_hand - reserved,
        in_transit=in_transit,
        reorder_point=_find_reorder_point(events),
        low=raised is not None and cleared is None,
        open_time=first.opened_at,
        stock_id=first.stock_id,
        reorder_terms=_find_terms(events),
    )


def fold_stock_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON."""
    view, terms = fold_stock(events), _find_terms(events)
    names = ("sku", "warehouse_id", "on_hand", "reserved", "in_transit", "reorder_point")
    return {
        **{name: getattr(view, name) for name in names},
        "discontinued": bool(select(events, events_pb2.StockDiscontinued)),
        "alerted": view.low,
        "alerts": sum(1 for _ in iterate(events, events_pb2.ReorderAlertRaised)),
        "terms": terms
        and {
            "supplier_id": terms.supplier_id,
            "quantity": terms.quantity,
            "unit_price": encode_money(terms.unit_price),
        },
        "terms_set_by": [*last.set_by] if (last := find_last(events, events_pb2.ReorderTermsSet)) else [],
    }


def stock_indexes(view: types.Stock) -> list[tuple[str, str]]:
    """Return the index entries of a stock: by sku, by warehouse, among all, and among low stocks."""
    member = index_member(view.open_time.ToMicroseconds(), view.stock_id)
    low = [("low",), ("low_warehouse", view.warehouse_id)] if view.low else []
    return list_entries(STOCK, member, ("all",), ("sku", view.sku), ("warehouse", view.warehouse_id), *low)


def fold_alert(events: Sequence[Event]) -> types.ReorderAlert:
    """Return a stock's latest alert."""
    first, (raised, cleared) = get_first(events, events_pb2.StockOpened), _find_alert(events)
    view = types.ReorderAlert(sku=first.sku, warehouse_id=first.warehouse_id, stock_id=first.stock_id)
    if raised is not None:
        view.state = types.ReorderAlert.STATE_CLEARED if cleared else types.ReorderAlert.STATE_RAISED
        view.available, view.reorder_point = raised.available, raised.reorder_point
        view.raise_time.CopyFrom(raised.raised_at)
        view.purchase_order_id = raised.purchase_order_id
    if cleared is not None:
        view.clear_time.CopyFrom(cleared.cleared_at)
    return view


def alert_indexes(view: types.ReorderAlert) -> list[tuple[str, str]]:
    """Return the index entries of an alert: among all alerts, and among raised ones until it is cleared."""
    member = index_member(view.raise_time.ToMicroseconds(), view.stock_id)
    if not view.HasField("raise_time"):
        return []
    raised = [] if view.HasField("clear_time") else [("raised",), ("raised_warehouse", view.warehouse_id)]
    return list_entries(ALERT, member, ("ever",), *raised)


def fold_ledger(events: Sequence[Event]) -> types.StockLedger:
    first = get_first(events, events_pb2.StockOpened)
    return types.StockLedger(
        sku=first.sku, version=len(events), warehouse_id=first.warehouse_id, stock_id=first.stock_id
    )


def movement(event: Event) -> types.StockMovement:
    """Return a stock's history entry for an event."""
    message = event.message
    result = types.StockMovement(**describe(event, "version", "record_time", "actor"))
    if type(message) in SUMS:
        name = message.DESCRIPTOR.name.removeprefix("Stock").upper()
        result.kind = types.StockMovement.Kind.Value(f"KIND_{name}")
        result.sku, result.warehouse_id = message.sku, message.warehouse_id
        result.quantity = _get_quantity(message)
        if name == "RECEIVED":
            result.receipt_reason = message.reason
            result.reference = message.purchase_order or message.delivery_note
        else:
            result.reference = getattr(message, REFERENCES.get(type(message), "reservation_id"))
        if name != "EXPECTED":
            result.on_hand, result.reserved = message.on_hand, message.reserved
    return result


def fold_product(events: Sequence[Event]) -> types.Product:
    first = get_first(events, events_pb2.ProductRegistered)
    discontinued = find_last(events, events_pb2.ProductDiscontinued)
    return types.Product(
        sku=first.sku,
        version=len(events),
        title=first.title,
        reorder_point=first.reorder_point,
        warehouse_ids=[message.warehouse_id for message in select(events, events_pb2.WarehouseStocked)],
        register_time=first.registered_at,
        discontinue_time=discontinued and discontinued.discontinued_at,
        product_id=first.product_id,
    )


def fold_product_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON."""
    view = fold_product(events)
    return {
        "sku": view.sku,
        "title": view.title,
        "reorder_point": view.reorder_point,
        "warehouse_ids": list(view.warehouse_ids),
        "discontinued": view.HasField("discontinue_time"),
    }


RESERVATION_STATES: dict[Any, str] = {
    events_pb2.ReservationMade: "OPEN",
    events_pb2.ReservationFirmed: "FIRM",
    events_pb2.ReservationReleased: "RELEASED",
    events_pb2.ReservationExpired: "RELEASED",
    events_pb2.ReservationCommitted: "COMMITTED",
}
RESERVATION_ENDS: dict[Any, tuple[str, str]] = {
    events_pb2.ReservationReleased: ("released_at", ""),
    events_pb2.ReservationExpired: ("expired_at", "its deadline has passed"),
    events_pb2.ReservationCommitted: ("committed_at", ""),
}
"""Event to (its field with the end of the reservation, release reason); empty: the event's own reason."""


def fold_reservation(events: Sequence[Event]) -> types.Reservation:
    first, last = get_first(events, events_pb2.ReservationMade), events[-1].message
    view = types.Reservation(
        reservation_id=first.reservation_id,
        version=len(events),
        state=types.Reservation.State.Value(f"STATE_{RESERVATION_STATES[type(last)]}"),
        lines=first.lines,
        deadline=first.deadline,
        make_time=first.made_at,
    )
    if type(last) in RESERVATION_ENDS:
        time_field, reason = RESERVATION_ENDS[type(last)]
        view.end_time.CopyFrom(getattr(last, time_field))
        view.release_reason = reason or getattr(last, "reason", "")
    return view


def fold_reservation_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON."""
    first = get_first(events, events_pb2.ReservationMade)
    names = ("sku", "warehouse_id", "quantity")
    return {
        "status": RESERVATION_STATES[type(events[-1].message)],
        "lines": [{name: getattr(line, name) for name in names} for line in first.lines],
        "deadline": encode_time(first.deadline),
    }


def fold_transfer_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON."""
    first = get_first(events, events_pb2.TransferStarted)
    names = ("sku", "from_warehouse_id", "to_warehouse_id", "quantity")
    return {**{name: getattr(first, name) for name in names}, "completed": len(events) > 1}


AGGREGATES = (
    Aggregate(
        "inventory.product",
        events=EVENTS,
        snapshot=fold_product_snapshot,
        projections=(
            ProjectionSpec(
                PRODUCT,
                fold=fold_product,
                columns=columns("sku", "title"),
                indexes=lambda view: [
                    (
                        PRODUCT.index("sku", view.sku),
                        index_member(view.register_time.ToMicroseconds(), view.product_id),
                    )
                ],
            ),
        ),
    ),
    Aggregate(
        "inventory.stock",
        events=EVENTS,
        snapshot=fold_stock_snapshot,
        projections=(
            ProjectionSpec(
                STOCK,
                fold=fold_stock,
                columns=columns("sku", "warehouse_id", "on_hand", "reserved", "in_transit"),
                indexes=stock_indexes,
            ),
            ProjectionSpec(
                ALERT,
                fold=fold_alert,
                columns=columns("sku", "warehouse_id", "state"),
                indexes=alert_indexes,
                change_feeds=lambda view: [ALERT.change_feed("ever")] if view.HasField("raise_time") else [],
            ),
            ProjectionSpec(
                LEDGER,
                fold=fold_ledger,
                indexes=lambda view: [(LEDGER.index("sku", view.sku), index_member(0, view.stock_id))],
                history=lambda events: map(movement, events),
            ),
        ),
    ),
    Aggregate(
        "inventory.delivery",
        events=EVENTS,
        snapshot=lambda events: {"quantity": get_first(events, events_pb2.DeliveryReceived).quantity},
        projections=(),
    ),
    Aggregate(
        "inventory.reservation",
        events=EVENTS,
        snapshot=fold_reservation_snapshot,
        projections=(
            ProjectionSpec(
                RESERVATION,
                fold=fold_reservation,
                indexes=list_ended(RESERVATION, "reservation_id"),
                has_ended=has_end_time,
                columns=columns("state", "deadline"),
            ),
        ),
    ),
    Aggregate("inventory.transfer", events=EVENTS, snapshot=fold_transfer_snapshot, projections=()),
    PURCHASE_ORDERS,
)
