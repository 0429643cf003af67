"""The sagas of ticketing: expire held seats, take back tickets of cancelled shows, make offers."""

from diptych.ticketing.v1 import command_service_pb2 as commands
from diptych.ticketing.v1 import events_pb2 as events

from contracts.events.ticketing import EVENTS
from process_manager.sagas.deadlines import deadline_saga
from process_manager.sagas.ticketing_cancellation import CANCELLATIONS
from process_manager.sagas.ticketing_waiting_list import OFFERS

HOLDS = deadline_saga(
    "ticketing.hold_deadline",
    "ticketing.booking",
    EVENTS,
    events.BookingMade,
    commands.ExpireSeatsRequest,
)
SAGAS = (HOLDS, CANCELLATIONS, OFFERS)
