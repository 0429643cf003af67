"""The independent fold of purchase orders.

What has arrived is counted over all deliveries here, where rules and projector add each delivery to a line.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from diptych.inventory.v1 import events_pb2
from diptych.inventory.v1 import types_pb2 as types

from contracts.events.inventory import EVENTS
from contracts.view_layout import View, index_member
from operations.verify.events import find_last, get_first, select
from operations.verify.formats import columns, encode_money, list_entries
from operations.verify.model import Aggregate, Event, ProjectionSpec

PURCHASE_ORDER = View.of(types.PurchaseOrder)
TENTH = 10
"""A line may have a tenth more pieces than were ordered."""


def count_received(events: Sequence[Event]) -> list[tuple[Any, int]]:
    """Return each line of the order with the number of its pieces that have arrived.

    Raises:
        ValueError: more arrived than may, or a delivery claims to complete the order and does not.
    """
    lines = get_first(events, events_pb2.PurchaseOrderRaised).lines
    counts: Counter[str] = Counter()
    for goods in select(events, events_pb2.GoodsReceived):
        for line in goods.lines:
            counts[line.sku] += line.quantity
        complete = not any(counts[line.sku] < line.quantity for line in lines)
        if complete != goods.complete:
            raise ValueError(f"complete of GoodsReceived is {goods.complete}")
    if too_many := {line.sku for line in lines if counts[line.sku] * TENTH > line.quantity * (TENTH + 1)}:
        raise ValueError(f"too many pieces of {min(too_many)}")
    if unknown := counts.keys() - {line.sku for line in lines}:
        raise ValueError(f"{min(unknown)} was not ordered")
    return [(line, counts[line.sku]) for line in lines]


def find_status(events: Sequence[Event]) -> str:
    for kind, status in (
        (events_pb2.PurchaseOrderClosed, "CLOSED"),
        (events_pb2.PurchaseOrderCancelled, "CANCELLED"),
    ):
        if find_last(events, kind) is not None:
            return status
    if find_last(events, events_pb2.PurchaseOrderSent) is not None:
        missing = any(count < line.quantity for line, count in count_received(events))
        return "SENT" if missing else "RECEIVED"
    raised = get_first(events, events_pb2.PurchaseOrderRaised)
    approved = find_last(events, events_pb2.PurchaseOrderApproved) is not None
    return "RAISED" if raised.needs_approval and not approved else "APPROVED"


def check_total(raised: Any) -> None:
    """Raise ValueError if the total is not the sum of the lines in one currency."""
    nanos = sum(
        (line.unit_price.units * 10**9 + line.unit_price.nanos) * line.quantity for line in raised.lines
    )
    currencies = {line.unit_price.currency_code for line in raised.lines}
    total = raised.total.units * 10**9 + raised.total.nanos
    if total != nanos or currencies != {raised.total.currency_code}:
        raise ValueError(f"the total is {total} {raised.total.currency_code}, the sum of the lines {nanos}")


def fold_order(events: Sequence[Event]) -> types.PurchaseOrder:
    raised = get_first(events, events_pb2.PurchaseOrderRaised)
    check_total(raised)
    approved = find_last(events, events_pb2.PurchaseOrderApproved)
    sent = find_last(events, events_pb2.PurchaseOrderSent)
    goods = find_last(events, events_pb2.GoodsReceived)
    closed = find_last(events, events_pb2.PurchaseOrderClosed)
    cancelled = find_last(events, events_pb2.PurchaseOrderCancelled)
    end = closed or cancelled
    return types.PurchaseOrder(
        purchase_order_id=raised.purchase_order_id,
        version=len(events),
        state=types.PurchaseOrder.State.Value(f"STATE_{find_status(events)}"),
        supplier_id=raised.supplier_id,
        warehouse_id=raised.warehouse_id,
        lines=[
            types.PurchaseOrder.Line(
                sku=line.sku, quantity=line.quantity, unit_price=line.unit_price, received=count
            )
            for line, count in count_received(events)
        ],
        total=raised.total,
        raised_by=raised.raised_by,
        approved_by=approved.approved_by if approved else "",
        expected_on=sent.expected_on if sent else "",
        raise_time=raised.raised_at,
        send_time=sent and sent.sent_at,
        receive_time=goods and goods.received_at,
        end_time=closed.closed_at if closed else cancelled and cancelled.cancelled_at,
        end_reason=end.reason if end else "",
    )


def fold_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON."""
    view = fold_order(events)
    return {
        "status": find_status(events),
        "raisers": list(events[0].message.raisers) or [view.raised_by],
        **{name: getattr(view, name) for name in ("supplier_id", "warehouse_id", "expected_on")},
        "lines": [
            {"sku": line.sku, "quantity": line.quantity, "unit_price": encode_money(line.unit_price)}
            for line in view.lines
        ],
        "received": [line.received for line in view.lines],
    }


def list_missing(view: types.PurchaseOrder) -> Iterator[tuple[str, int]]:
    """Yield the skus that the supplier owes, each with the number of pieces."""
    for line in view.lines:
        missing = max(line.quantity - line.received, 0)
        if missing and view.state == types.PurchaseOrder.STATE_SENT:
            yield line.sku, missing


def order_indexes(view: types.PurchaseOrder) -> list[tuple[str, str]]:
    state = types.PurchaseOrder.State.Name(view.state)
    return list_entries(
        PURCHASE_ORDER,
        index_member(view.raise_time.ToMicroseconds(), view.purchase_order_id),
        ("all",),
        ("supplier", view.supplier_id),
        ("state", state),
        ("supplier_state", view.supplier_id, state),
        *(("expected", sku) for sku, _ in list_missing(view)),
    )


def contributions(view: types.PurchaseOrder) -> Iterator[tuple[str, str, int]]:
    for sku, count in list_missing(view):
        yield PURCHASE_ORDER.counters("expected", sku), f"{view.expected_on}/{view.warehouse_id}", count


PURCHASE_ORDERS = Aggregate(
    "inventory.purchase_order",
    events=EVENTS,
    snapshot=fold_snapshot,
    projections=(
        ProjectionSpec(
            PURCHASE_ORDER,
            fold=fold_order,
            columns=columns("state", "supplier_id", "warehouse_id", "total", "expected_on"),
            indexes=order_indexes,
            contributions=contributions,
            contributors_index=lambda key: key.replace("counters:", "index:", 1),
        ),
    ),
)
