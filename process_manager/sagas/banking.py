"""The sagas of banking: expire holds after their deadlines."""

from diptych.banking.v1 import command_service_pb2 as commands
from diptych.banking.v1 import events_pb2 as events

from contracts.events.banking import EVENTS
from process_manager.sagas.deadlines import deadline_saga

HOLDS = deadline_saga(
    "banking.hold_deadline",
    "banking.hold",
    EVENTS,
    events.HoldPlaced,
    commands.ExpireHoldRequest,
)
SAGAS = (HOLDS,)
