"""The sagas of inventory: expire reservations after their deadlines, order what alerts ask for."""

from diptych.inventory.v1 import command_service_pb2 as commands
from diptych.inventory.v1 import events_pb2 as events

from contracts.events.inventory import EVENTS
from process_manager.sagas.deadlines import deadline_saga
from process_manager.sagas.inventory_reorder import REORDERS

RESERVATIONS = deadline_saga(
    "inventory.reservation_deadline",
    "inventory.reservation",
    EVENTS,
    events.ReservationMade,
    commands.ExpireReservationRequest,
)
SAGAS = (RESERVATIONS, REORDERS)
