"""The view of a fulfilment: every field of `diptych.fulfilment.v1.Fulfilment` that is not deprecated."""

from datetime import timedelta

from diptych.fulfilment.v1 import events_pb2 as events
from diptych.fulfilment.v1 import types_pb2 as views

from contracts.events.fulfilment import EVENTS
from contracts.view_layout import View, index_member
from projector.projection import Entry, Projection

VIEW = View.of(views.Fulfilment)
DUE, NEVER_DUE = 2**62, 2**61
"""From these the due times, and the beginnings of those without one, are counted down: lists begin with the
highest number."""


def index_entries(fulfilment: views.Fulfilment) -> list[Entry]:
    """List fulfilments by customer, by state, by both, and all together, the longest overdue first."""
    if fulfilment.HasField("due_time"):
        number = DUE - fulfilment.due_time.ToMicroseconds()
    else:
        number = NEVER_DUE - fulfilment.begin_time.ToMicroseconds()
    member = index_member(number, fulfilment.order_id)
    state = views.Fulfilment.State.Name(fulfilment.state)
    entries = [(VIEW.index("all"), member), (VIEW.index("state", state), member)]
    if customer_id := fulfilment.customer_id:
        entries.append((VIEW.index("customer", customer_id), member))
        entries.append((VIEW.index("customer_state", customer_id, state), member))
    return entries


FULFILMENTS = Projection[views.Fulfilment](
    VIEW, events=EVENTS, columns=("state", "order_version", "due_time"), indexes=index_entries
)


@FULFILMENTS.on(events.FulfilmentRecorded)
def recorded(fulfilment: views.Fulfilment, event: events.FulfilmentRecorded) -> None:
    if not fulfilment.order_id:
        fulfilment.order_id = event.order_id
        fulfilment.begin_time.CopyFrom(event.recorded_at)
    if event.state != fulfilment.state:
        fulfilment.state = event.state
        fulfilment.state_start_time.CopyFrom(event.recorded_at)
    fulfilment.customer_id = event.customer_id or fulfilment.customer_id
    fulfilment.order_version = event.order_version
    fulfilment.waiting_for = event.waiting_for
    fulfilment.rejection = event.rejection
    fulfilment.suspicion = event.suspicion
    fulfilment.blocked_reason = event.blocked_reason
    fulfilment.reservation_id = event.reservation_id
    fulfilment.hold_id = event.hold_id
    fulfilment.ClearField("due_time")
    if event.blocked_reason or event.max_seconds:
        seconds = 0 if event.blocked_reason else event.max_seconds
        start = fulfilment.state_start_time.ToDatetime()
        fulfilment.due_time.FromDatetime(start + timedelta(seconds=seconds))
