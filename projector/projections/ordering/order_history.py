"""The history of an order: one entry per recorded event, with its actor and its command."""

from diptych.ordering.v1 import types_pb2 as views
from diptych.ordering.v2 import events_pb2 as v2

from contracts.envelope import RecordedEvent
from contracts.events.ordering import EVENTS
from contracts.view_layout import View
from projector.projection import Projection

VIEW = View.of(views.OrderHistory)
TYPE_URL_PREFIX = "type.googleapis.com/"


def create_entry(_: views.OrderHistory, event: RecordedEvent) -> views.OrderHistoryEntry:
    """Return the entry of an event, which shows the event as it was recorded, in that version.

    The event's causation id is the request id of its command.
    """
    metadata = event.metadata
    entry = views.OrderHistoryEntry(
        version=event.version,
        event_type=event.type,
        actor=metadata.get("actor", ""),
        command=metadata.get("command", ""),
        request_id=metadata.get("causation_id", ""),
        correlation_id=metadata.get("correlation_id", ""),
        on_behalf_of=metadata.get("on_behalf_of", ""),
    )
    entry.record_time.FromDatetime(event.recorded_at)
    entry.event.type_url = TYPE_URL_PREFIX + event.type
    entry.event.value = event.data
    return entry


HISTORIES = Projection[views.OrderHistory](VIEW, events=EVENTS, history=create_entry)


@HISTORIES.on(v2.OrderPlaced)
def placed(history: views.OrderHistory, event: v2.OrderPlaced) -> None:
    """The view itself has only the id: everything else is in the entries."""
    history.order_id = event.order_id
