"""Inventory, folded once more: stock is a sum of differences here, where rules and projector take the levels
that events tell.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from diptych.inventory.v1 import events_pb2 as happened
from diptych.inventory.v1 import types_pb2 as types

from contracts.view_layout import View, index_member
from operations.verify.model import Aggregate, Event, Reading

SUMS: dict[Any, tuple[int, int, int]] = {
    happened.StockReceived: (1, 0, 0),
    happened.StockReserved: (0, 1, 0),
    happened.StockReleased: (0, -1, 0),
    happened.StockCommitted: (-1, -1, 0),
    happened.StockSent: (-1, 0, 0),
    happened.StockExpected: (0, 0, 1),
    happened.StockArrived: (1, 0, -1),
    happened.StockAdjusted: (1, 0, 0),
}
"""How often what an event is about is added to on hand, reserved and in transit."""
REFERENCES: dict[Any, str] = {
    happened.StockReceived: "purchase_order",
    happened.StockSent: "transfer_id",
    happened.StockExpected: "transfer_id",
    happened.StockArrived: "transfer_id",
    happened.StockAdjusted: "reason",
}
"""What a movement belongs to, where that is no reservation."""

PRODUCT, STOCK, ALERT = View.of(types.Product), View.of(types.Stock), View.of(types.ReorderAlert)
LEDGER, RESERVATION = View.of(types.StockLedger), View.of(types.Reservation)


def _of(events: Sequence[Event], *kinds: Any) -> list[Any]:
    """Return the messages of some kinds."""
    return [event.message for event in events if isinstance(event.message, kinds)]


def _first(events: Sequence[Event], kind: Any) -> Any:
    if not isinstance(events[0].message, kind):
        raise ValueError(f"{events[0].recorded.type} is version 1")
    return events[0].message


def _last(found: Sequence[Any]) -> Any:
    return found[-1] if found else None


def _amount(message: Any) -> int:
    return int(message.difference if isinstance(message, happened.StockAdjusted) else message.quantity)


def levels(events: Sequence[Event]) -> tuple[int, int, int]:
    """Return what is on hand, reserved and in transit; what events tell of it must be that."""
    on_hand = reserved = in_transit = 0
    for message in _of(events, *SUMS):
        factors = SUMS[type(message)]
        on_hand += factors[0] * _amount(message)
        reserved += factors[1] * _amount(message)
        in_transit += factors[2] * _amount(message)
        actual = {"on_hand": on_hand, "reserved": reserved, "in_transit": in_transit}
        for name, level in actual.items():
            if name in message.DESCRIPTOR.fields_by_name and getattr(message, name) != level:
                raise ValueError(
                    f"{message.DESCRIPTOR.name} tells {name} {getattr(message, name)}, not {level}"
                )
    if not 0 <= reserved <= on_hand or in_transit < 0:
        raise ValueError(f"{reserved} of {on_hand} are reserved, {in_transit} in transit")
    return on_hand, reserved, in_transit


def _alerts(events: Sequence[Event]) -> tuple[Any, Any]:
    """Return the last raising, and its clearing if there was one since."""
    crossings = _of(events, happened.ReorderAlertRaised, happened.ReorderAlertCleared)
    raised = _last([c for c in crossings if isinstance(c, happened.ReorderAlertRaised)])
    last = _last(crossings)
    return raised, last if last is not raised else None


def _point(events: Sequence[Event]) -> int:
    told = _of(events, happened.StockOpened, happened.ReorderPointSet)
    return int(told[-1].reorder_point)


def stock(events: Sequence[Event]) -> types.Stock:
    """Return a stock as it is read."""
    began = _first(events, happened.StockOpened)
    on_hand, reserved, in_transit = levels(events)
    raised, cleared = _alerts(events)
    return types.Stock(
        sku=began.sku,
        version=len(events),
        warehouse_id=began.warehouse_id,
        on_hand=on_hand,
        reserved=reserved,
        available=on_hand - reserved,
        in_transit=in_transit,
        reorder_point=_point(events),
        low=raised is not None and cleared is None,
        open_time=began.opened_at,
        stock_id=began.stock_id,
    )


def stock_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return a stock as the rules remember it."""
    view = stock(events)
    same = ("sku", "warehouse_id", "on_hand", "reserved", "in_transit", "reorder_point")
    ended = bool(_of(events, happened.StockDiscontinued))
    return {**{name: getattr(view, name) for name in same}, "discontinued": ended, "alerted": view.low}


def stock_indexes(view: types.Stock) -> Iterable[tuple[str, str]]:
    """Stocks are found by sku, listed by warehouse and all together, and once more where they are low."""
    member = index_member(view.open_time.ToMicroseconds(), view.stock_id)
    for values in (("all",), ("sku", view.sku), ("warehouse", view.warehouse_id)):
        yield STOCK.index(*values), member
    if view.low:
        yield STOCK.index("low"), member
        yield STOCK.index("low_warehouse", view.warehouse_id), member


def alert(events: Sequence[Event]) -> types.ReorderAlert:
    """Return the latest crossing."""
    began, (raised, cleared) = _first(events, happened.StockOpened), _alerts(events)
    view = types.ReorderAlert(sku=began.sku, warehouse_id=began.warehouse_id, stock_id=began.stock_id)
    if raised is not None:
        view.state = types.ReorderAlert.STATE_CLEARED if cleared else types.ReorderAlert.STATE_RAISED
        view.available, view.reorder_point = raised.available, raised.reorder_point
        view.raise_time.CopyFrom(raised.raised_at)
    if cleared is not None:
        view.clear_time.CopyFrom(cleared.cleared_at)
    return view


def alert_indexes(view: types.ReorderAlert) -> Iterable[tuple[str, str]]:
    """Alerts that stand are listed; all that ever did are watched."""
    member = index_member(view.raise_time.ToMicroseconds(), view.stock_id)
    if view.HasField("raise_time"):
        yield ALERT.index("ever"), member
        if not view.HasField("clear_time"):
            yield ALERT.index("raised"), member
            yield ALERT.index("raised_warehouse", view.warehouse_id), member


def ledger(events: Sequence[Event]) -> types.StockLedger:
    """Return what a ledger says beside its entries."""
    began = _first(events, happened.StockOpened)
    return types.StockLedger(
        sku=began.sku, version=len(events), warehouse_id=began.warehouse_id, stock_id=began.stock_id
    )


def entry(event: Event) -> types.StockMovement:
    """Return what a stock's ledger tells of an event."""
    recorded, message = event.recorded, event.message
    told = types.StockMovement(version=recorded.version, actor=recorded.metadata.get("actor", ""))
    told.record_time.FromDatetime(recorded.recorded_at)
    if type(message) in SUMS:
        name = message.DESCRIPTOR.name.removeprefix("Stock").upper()
        told.kind = types.StockMovement.Kind.Value(f"KIND_{name}")
        told.sku, told.warehouse_id = message.sku, message.warehouse_id
        told.quantity = _amount(message)
        told.reference = getattr(message, REFERENCES.get(type(message), "reservation_id"))
        if name != "EXPECTED":
            told.on_hand, told.reserved = message.on_hand, message.reserved
    return told


def product(events: Sequence[Event]) -> types.Product:
    """Return a product as it is read."""
    began = _first(events, happened.ProductRegistered)
    ended = _last(_of(events, happened.ProductDiscontinued))
    return types.Product(
        sku=began.sku,
        version=len(events),
        title=began.title,
        reorder_point=began.reorder_point,
        warehouse_ids=[message.warehouse_id for message in _of(events, happened.WarehouseStocked)],
        register_time=began.registered_at,
        discontinue_time=ended and ended.discontinued_at,
        product_id=began.product_id,
    )


def product_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return a product as the rules remember it."""
    view = product(events)
    return {
        "sku": view.sku,
        "title": view.title,
        "reorder_point": view.reorder_point,
        "warehouse_ids": list(view.warehouse_ids),
        "discontinued": view.HasField("discontinue_time"),
    }


STATES: dict[Any, str] = {
    happened.ReservationMade: "OPEN",
    happened.ReservationFirmed: "FIRM",
    happened.ReservationReleased: "RELEASED",
    happened.ReservationExpired: "RELEASED",
    happened.ReservationCommitted: "COMMITTED",
}
ENDS: dict[Any, tuple[str, str]] = {
    happened.ReservationReleased: ("released_at", ""),
    happened.ReservationExpired: ("expired_at", "its deadline has passed"),
    happened.ReservationCommitted: ("committed_at", ""),
}
"""When a reservation ended, and why, where the event does not say it."""


def reservation(events: Sequence[Event]) -> types.Reservation:
    """Return a reservation as it is read."""
    began, last = _first(events, happened.ReservationMade), events[-1].message
    view = types.Reservation(
        reservation_id=began.reservation_id,
        version=len(events),
        state=types.Reservation.State.Value(f"STATE_{STATES[type(last)]}"),
        lines=began.lines,
        deadline=began.deadline,
        make_time=began.made_at,
    )
    if type(last) in ENDS:
        when, why = ENDS[type(last)]
        view.end_time.CopyFrom(getattr(last, when))
        view.release_reason = why or getattr(last, "reason", "")
    return view


def reservation_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return a reservation as the rules remember it."""
    began = _first(events, happened.ReservationMade)
    names = ("sku", "warehouse_id", "quantity")
    return {
        "status": STATES[type(events[-1].message)],
        "lines": [{name: getattr(line, name) for name in names} for line in began.lines],
        "deadline": began.deadline.ToDatetime(UTC).isoformat().replace("+00:00", "Z"),
    }


def transfer_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return a transfer as the rules remember it."""
    began = _first(events, happened.TransferStarted)
    names = ("sku", "from_warehouse_id", "to_warehouse_id", "quantity")
    return {**{name: getattr(began, name) for name in names}, "completed": len(events) > 1}


def _seconds(timestamp: Any) -> str:
    return datetime.fromtimestamp(timestamp.seconds, UTC).isoformat() if timestamp.seconds else ""


def _texts(*names: str) -> Any:
    return lambda view: {name: str(getattr(view, name)) for name in names}


AGGREGATES = (
    Aggregate(
        "inventory.product",
        events=(happened,),
        snapshot=product_snapshot,
        readings=(
            Reading(
                PRODUCT,
                fold=product,
                columns=_texts("sku", "title"),
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
        events=(happened,),
        snapshot=stock_snapshot,
        readings=(
            Reading(
                STOCK,
                fold=stock,
                columns=_texts("sku", "warehouse_id", "on_hand", "reserved", "in_transit"),
                indexes=stock_indexes,
            ),
            Reading(
                ALERT,
                fold=alert,
                columns=lambda view: {
                    **_texts("sku", "warehouse_id")(view),
                    "state": types.ReorderAlert.State.Name(view.state),
                },
                indexes=alert_indexes,
                changes=lambda view: [ALERT.change_feed("ever")] if view.HasField("raise_time") else [],
            ),
            Reading(
                LEDGER,
                fold=ledger,
                indexes=lambda view: [(LEDGER.index("sku", view.sku), index_member(0, view.stock_id))],
                log=lambda events: [entry(event) for event in events],
            ),
        ),
    ),
    Aggregate(
        "inventory.delivery",
        events=(happened,),
        snapshot=lambda events: {"quantity": _first(events, happened.DeliveryReceived).quantity},
        readings=(),
    ),
    Aggregate(
        "inventory.reservation",
        events=(happened,),
        snapshot=reservation_snapshot,
        readings=(
            Reading(
                RESERVATION,
                fold=reservation,
                columns=lambda view: {
                    "state": types.Reservation.State.Name(view.state),
                    "deadline": _seconds(view.deadline),
                },
            ),
        ),
    ),
    Aggregate("inventory.transfer", events=(happened,), snapshot=transfer_snapshot, readings=()),
)
