"""The history of an order: one entry per recorded event, with its actor and its command."""

from diptych.ordering.v1 import types_pb2 as views
from diptych.ordering.v2 import events_pb2 as v2

from contracts.events.ordering import EVENTS
from contracts.view_layout import View
from projector.history import entry_factory
from projector.projection import Projection

VIEW = View.of(views.OrderHistory)
HISTORIES = Projection[views.OrderHistory](
    VIEW, events=EVENTS, history=entry_factory(views.OrderHistoryEntry)
)


@HISTORIES.on(v2.OrderPlaced)
def placed(history: views.OrderHistory, event: v2.OrderPlaced) -> None:
    """The view itself has only the id: everything else is in the entries."""
    history.order_id = event.order_id
