"""The history of an order: one entry per recorded event, with its actor and its command."""

from diptych.ordering.v1 import events_pb2 as v1
from diptych.ordering.v1 import types_pb2 as views
from diptych.ordering.v2 import events_pb2 as v2

from contracts.events.ordering import EVENTS
from contracts.view_layout import View
from projector.archival import archival_by_end_time, ended_entries
from projector.history import entry_factory, entry_time_reader
from projector.projection import Projection

VIEW = View.of(views.OrderHistory)

HISTORIES = Projection[views.OrderHistory](
    VIEW,
    events=EVENTS,
    indexes=ended_entries(VIEW, "order_id"),
    history=entry_factory(views.OrderHistoryEntry),
    read_entry_time=entry_time_reader(views.OrderHistoryEntry),
    archival=archival_by_end_time(VIEW),
)


@HISTORIES.on(v2.OrderPlaced)
def placed(history: views.OrderHistory, event: v2.OrderPlaced) -> None:
    """The view itself has only ids and the end: everything else is in the entries."""
    history.order_id = event.order_id
    history.customer_id = event.customer_id


@HISTORIES.on(v1.OrderRejected)
def rejected(history: views.OrderHistory, event: v1.OrderRejected) -> None:
    history.end_time.CopyFrom(event.rejected_at)


@HISTORIES.on(v1.OrderCancelled)
def cancelled(history: views.OrderHistory, event: v1.OrderCancelled) -> None:
    history.end_time.CopyFrom(event.cancelled_at)


@HISTORIES.on(v1.OrderDelivered)
def delivered(history: views.OrderHistory, event: v1.OrderDelivered) -> None:
    history.end_time.CopyFrom(event.delivered_at)


@HISTORIES.on(v1.OrderReturned)
def returned(history: views.OrderHistory, event: v1.OrderReturned) -> None:
    history.end_time.CopyFrom(event.returned_at)
