"""The view of an order: every field of `diptych.ordering.v1.Order` that is not deprecated."""

from diptych.ordering.v1 import events_pb2 as v1
from diptych.ordering.v1 import types_pb2 as views
from diptych.ordering.v2 import events_pb2 as v2
from google.protobuf.timestamp_pb2 import Timestamp

from contracts.address_digest import digest_address
from contracts.events.ordering import EVENTS
from contracts.money import split_for_counters, to_nanos
from contracts.view_layout import View, index_member, ranked_member
from projector.archival import Archival
from projector.projection import Contribution, Entry, Projection

VIEW = View.of(views.Order)
END_TIMES = {
    views.Order.STATE_REJECTED: "reject_time",
    views.Order.STATE_CANCELLED: "cancel_time",
    views.Order.STATE_DELIVERED: "deliver_time",
    views.Order.STATE_RETURNED: "return_time",
}
"""The states of orders that have ended, with the field of that time. A delivered one may be returned yet."""


def index_entries(order: views.Order) -> list[Entry]:
    """List orders by customer, by state, by both, by sku, and all together, sorted by the time of placing.

    All are also listed by total, and a customer's by the digests of their addresses.
    """
    micros = order.place_time.ToMicroseconds()
    member = index_member(micros, order.order_id)
    ranked = ranked_member(to_nanos(order.total), micros, order.order_id)
    state = views.Order.State.Name(order.state)
    skus = dict.fromkeys(line.sku for group in order.shipping_groups for line in group.lines)
    by_address = VIEW.index("customer_address", order.customer_id)
    digests = dict.fromkeys(
        digest_address(group.shipping_address)
        for group in order.shipping_groups
        if group.HasField("shipping_address")
    )
    return [
        (VIEW.index("customer", order.customer_id), member),
        (VIEW.index("state", state), member),
        (VIEW.index("customer_state", order.customer_id, state), member),
        (VIEW.index("all"), member),
        (VIEW.index("total", order.total.currency_code), ranked),
        *((VIEW.index("sku", sku), member) for sku in skus),
        *((by_address, f"{digest}:{order.order_id}") for digest in digests),
    ]


def contributions(order: views.Order) -> list[Contribution]:
    """Count a customer's orders by state, and sum their totals by state and currency."""
    customer, total = VIEW.counters("customer", order.customer_id), order.total
    state = views.Order.State.Name(order.state)
    suffix = f"{state}/{total.currency_code}"
    return [
        (customer, f"orders/{state}", 1),
        *((customer, f"{part}/{suffix}", value) for part, value in split_for_counters(total)),
    ]


def change_feeds(order: views.Order) -> list[str]:
    return [VIEW.change_feed("customer", order.customer_id)]


def get_end(order: views.Order) -> Timestamp | None:
    return getattr(order, END_TIMES[order.state]) if order.state in END_TIMES else None


ORDERS = Projection[views.Order](
    VIEW,
    events=EVENTS,
    columns=("state", "customer_id", "total", "place_time"),
    indexes=index_entries,
    contributions=contributions,
    change_feeds=change_feeds,
    archival=Archival(
        tuple(VIEW.index("state", views.Order.State.Name(state)) for state in END_TIMES),
        get_end,
        kept_indexes=("customer_address",),  # the fraud rules know a customer's addresses for good
    ),
)


@ORDERS.on(v2.OrderPlaced)
def placed(order: views.Order, event: v2.OrderPlaced) -> None:
    order.order_id = event.order_id
    order.state = views.Order.STATE_PLACED
    order.customer_id = event.customer_id
    for group in event.groups:
        added = order.shipping_groups.add(
            shipping_group_id=group.shipping_group_id, lines=group.lines, warehouse_id=group.warehouse_id
        )
        _set_address(added, group.personal)
    order.total.CopyFrom(event.total)
    order.account_id = event.account_id
    order.place_time.CopyFrom(event.placed_at)


@ORDERS.on(v1.OrderLineAdded)
def line_added(order: views.Order, event: v1.OrderLineAdded) -> None:
    _get_group(order, event.shipping_group_id).lines.append(event.line)
    order.total.CopyFrom(event.total)


@ORDERS.on(v1.OrderLineRemoved)
def line_removed(order: views.Order, event: v1.OrderLineRemoved) -> None:
    lines = _get_group(order, event.shipping_group_id).lines  # at most one of each sku
    del lines[[line.sku for line in lines].index(event.sku)]
    order.total.CopyFrom(event.total)


@ORDERS.on(v1.ShippingAddressChanged)
def shipping_address_changed(order: views.Order, event: v1.ShippingAddressChanged) -> None:
    _set_address(_get_group(order, event.shipping_group_id), event.personal)


def _set_address(group: views.ShippingGroup, personal: v1.PersonalData) -> None:
    """Set the address of a group; unset it if the customer was forgotten."""
    group.ClearField("shipping_address")
    if personal.HasField("shipping_address"):
        group.shipping_address.CopyFrom(personal.shipping_address)


@ORDERS.on(v1.OrderHeld)
def held(order: views.Order, event: v1.OrderHeld) -> None:
    order.state = views.Order.STATE_HELD
    order.hold_time.CopyFrom(event.held_at)
    order.hold_reason = event.reason


@ORDERS.on(v1.OrderApproved)
def approved(order: views.Order, _: v1.OrderApproved) -> None:
    """The order keeps the time and the reason of its last hold. A confirmed one stays so."""
    if order.state == views.Order.STATE_HELD:
        order.state = views.Order.STATE_PLACED


@ORDERS.on(v1.OrderConfirmed)
def confirmed(order: views.Order, event: v1.OrderConfirmed) -> None:
    order.state = views.Order.STATE_CONFIRMED
    order.confirm_time.CopyFrom(event.confirmed_at)


@ORDERS.on(v1.OrderRejected)
def rejected(order: views.Order, event: v1.OrderRejected) -> None:
    order.state = views.Order.STATE_REJECTED
    order.reject_time.CopyFrom(event.rejected_at)
    order.reject_reason = event.reason


@ORDERS.on(v1.OrderCancelled)
def cancelled(order: views.Order, event: v1.OrderCancelled) -> None:
    order.state = views.Order.STATE_CANCELLED
    order.cancel_time.CopyFrom(event.cancelled_at)
    order.cancel_reason = event.reason


@ORDERS.on(v1.OrderShipped)
def shipped(order: views.Order, event: v1.OrderShipped) -> None:
    order.state = views.Order.STATE_SHIPPED
    order.ship_time.CopyFrom(event.shipped_at)
    order.carrier = event.carrier
    order.tracking_code = event.tracking_code


@ORDERS.on(v1.OrderDelivered)
def delivered(order: views.Order, event: v1.OrderDelivered) -> None:
    order.state = views.Order.STATE_DELIVERED
    order.deliver_time.CopyFrom(event.delivered_at)


@ORDERS.on(v1.OrderReturned)
def returned(order: views.Order, event: v1.OrderReturned) -> None:
    order.state = views.Order.STATE_RETURNED
    order.return_time.CopyFrom(event.returned_at)
    order.return_reason = event.reason


def _get_group(order: views.Order, group_id: str) -> views.ShippingGroup:
    """Return a shipping group of an order.

    Raises:
        LookupError: there is none with this id, so the event cannot be applied.
    """
    for group in order.shipping_groups:
        if group.shipping_group_id == group_id:
            return group
    raise LookupError(f"the order has no shipping group {group_id}")
