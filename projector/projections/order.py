"""The order as it is read: every field of `diptych.ordering.v1.Order`."""

from diptych.ordering.v1 import events_pb2 as events
from diptych.ordering.v1 import types_pb2 as views

from projector.projection import Entry, Projection
from runtime.views import View, index_member

VIEW = View.of(views.Order)


def entries(order: views.Order) -> list[Entry]:
    """Orders are listed by customer, by state and by both, in the order in which they were placed."""
    member = index_member(order.place_time.ToMicroseconds(), order.order_id)
    state = views.Order.State.Name(order.state)
    return [
        (VIEW.index("customer", order.customer_id), member),
        (VIEW.index("state", state), member),
        (VIEW.index("customer_state", order.customer_id, state), member),
    ]


ORDERS = Projection[views.Order](
    VIEW, events=events, columns=("state", "customer_id", "total", "place_time"), indexes=entries
)


@ORDERS.on(events.OrderPlaced)
def placed(order: views.Order, event: events.OrderPlaced) -> None:
    """All that the customer said is known from here on."""
    order.order_id = event.order_id
    order.state = views.Order.STATE_PLACED
    order.customer_id = event.customer_id
    order.lines.extend(event.lines)
    order.total.CopyFrom(event.total)
    order.shipping_address.CopyFrom(event.personal.shipping_address)
    order.account_id = event.account_id
    order.warehouse_id = event.warehouse_id
    order.place_time.CopyFrom(event.placed_at)


@ORDERS.on(events.OrderConfirmed)
def confirmed(order: views.Order, event: events.OrderConfirmed) -> None:
    """The seller will deliver."""
    order.state = views.Order.STATE_CONFIRMED
    order.confirm_time.CopyFrom(event.confirmed_at)


@ORDERS.on(events.OrderCancelled)
def cancelled(order: views.Order, event: events.OrderCancelled) -> None:
    """Final."""
    order.state = views.Order.STATE_CANCELLED
    order.cancel_time.CopyFrom(event.cancelled_at)
    order.cancel_reason = event.reason
