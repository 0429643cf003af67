"""What happened to an order, when, by whom and on which command: an entry for each recorded event."""

from diptych.ordering.v1 import events_pb2 as v1
from diptych.ordering.v1 import types_pb2 as views
from diptych.ordering.v2 import events_pb2 as v2

from contracts.envelope import RecordedEvent
from contracts.view_layout import View
from projector.projection import Projection

VIEW = View.of(views.OrderHistory)
ANY = "type.googleapis.com/"


def entry(_: views.OrderHistory, event: RecordedEvent) -> views.OrderHistoryEntry:
    """Return what the history tells of an event. A command's request id is what its events are caused by."""
    metadata = event.metadata
    history_entries = views.OrderHistoryEntry(
        version=event.version,
        event_type=event.type,
        actor=metadata.get("actor", ""),
        command=metadata.get("command", ""),
        request_id=metadata.get("causation_id", ""),
        correlation_id=metadata.get("correlation_id", ""),
        on_behalf_of=metadata.get("on_behalf_of", ""),
    )
    history_entries.record_time.FromDatetime(event.recorded_at)
    history_entries.event.type_url = ANY + event.type
    history_entries.event.value = event.data
    return history_entries


HISTORIES = Projection[views.OrderHistory](VIEW, events=(v1, v2), history=entry)


def began(history: views.OrderHistory, event: v1.OrderPlaced | v2.OrderPlaced) -> None:
    """With this an order's history begins; all else is in the entries."""
    history.order_id = event.order_id


HISTORIES.on(v1.OrderPlaced)(began)
HISTORIES.on(v2.OrderPlaced)(began)
