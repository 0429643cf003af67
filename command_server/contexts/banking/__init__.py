"""Banking: account_commands, holds on their money, and transfers between them."""

from diptych.banking.v1 import command_service_pb2

from command_server.contexts.banking.domain import account_commands, hold, transfer
from command_server.kernel.context import Context
from contracts.events.banking import EVENTS

CONTEXT = Context(
    "banking",
    commands=(command_service_pb2,),
    events=EVENTS,
    deciders=(account_commands.DECIDER, hold.DECIDER, transfer.DECIDER),
)
