"""The view of a purchase order, and the pieces that its lines still lack, summed by day and warehouse.

Its message is `diptych.inventory.v1.PurchaseOrder`.
"""

from diptych.inventory.v1 import events_pb2 as events
from diptych.inventory.v1 import types_pb2 as views

from contracts.events.inventory import EVENTS
from contracts.view_layout import View, index_member
from projector.projection import Contribution, Entry, Projection

VIEW = View.of(views.PurchaseOrder)


def index_entries(order: views.PurchaseOrder) -> list[Entry]:
    """List orders by supplier, by state, by both, and all together; sent ones also by each sku they lack."""
    member = index_member(order.raise_time.ToMicroseconds(), order.purchase_order_id)
    state = views.PurchaseOrder.State.Name(order.state)
    indexes = [
        ("all",),
        ("supplier", order.supplier_id),
        ("state", state),
        ("supplier_state", order.supplier_id, state),
        *(("expected", sku) for sku in count_missing(order)),
    ]
    return [(VIEW.index(*values), member) for values in indexes]


def count_missing(order: views.PurchaseOrder) -> dict[str, int]:
    """Return the pieces that the supplier is expected to deliver yet, by sku."""
    if order.state != views.PurchaseOrder.STATE_SENT:
        return {}
    return {line.sku: line.quantity - line.received for line in order.lines if line.received < line.quantity}


def contributions(order: views.PurchaseOrder) -> list[Contribution]:
    counter = f"{order.expected_on}/{order.warehouse_id}"
    return [(VIEW.counters("expected", sku), counter, count) for sku, count in count_missing(order).items()]


ORDERS = Projection[views.PurchaseOrder](
    VIEW,
    events=EVENTS,
    columns=("state", "supplier_id", "warehouse_id", "total", "expected_on"),
    indexes=index_entries,
    contributions=contributions,
)


@ORDERS.on(events.PurchaseOrderRaised)
def raised(order: views.PurchaseOrder, event: events.PurchaseOrderRaised) -> None:
    order.purchase_order_id = event.purchase_order_id
    order.state = order.STATE_RAISED if event.needs_approval else order.STATE_APPROVED
    order.supplier_id = event.supplier_id
    order.warehouse_id = event.warehouse_id
    for line in event.lines:
        order.lines.add(sku=line.sku, quantity=line.quantity, unit_price=line.unit_price)
    order.total.CopyFrom(event.total)
    order.raised_by = event.raised_by
    order.raise_time.CopyFrom(event.raised_at)


@ORDERS.on(events.PurchaseOrderApproved)
def approved(order: views.PurchaseOrder, event: events.PurchaseOrderApproved) -> None:
    order.state = order.STATE_APPROVED
    order.approved_by = event.approved_by


@ORDERS.on(events.PurchaseOrderSent)
def sent(order: views.PurchaseOrder, event: events.PurchaseOrderSent) -> None:
    order.state = order.STATE_SENT
    order.expected_on = event.expected_on
    order.send_time.CopyFrom(event.sent_at)


@ORDERS.on(events.GoodsReceived)
def received(order: views.PurchaseOrder, event: events.GoodsReceived) -> None:
    lines = {line.sku: line for line in order.lines}
    for delivered in event.lines:
        lines[delivered.sku].received += delivered.quantity
    if event.complete:
        order.state = order.STATE_RECEIVED
    order.receive_time.CopyFrom(event.received_at)


@ORDERS.on(events.PurchaseOrderClosed)
def closed(order: views.PurchaseOrder, event: events.PurchaseOrderClosed) -> None:
    order.state = order.STATE_CLOSED
    order.end_reason = event.reason
    order.end_time.CopyFrom(event.closed_at)


@ORDERS.on(events.PurchaseOrderCancelled)
def cancelled(order: views.PurchaseOrder, event: events.PurchaseOrderCancelled) -> None:
    order.state = order.STATE_CANCELLED
    order.end_reason = event.reason
    order.end_time.CopyFrom(event.cancelled_at)
