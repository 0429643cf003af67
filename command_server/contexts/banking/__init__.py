"""Banking: accounts, holds on their money, and transfers between them."""

from diptych.banking.v1 import command_service_pb2, events_pb2

from command_server.contexts.banking.domain import accounts, hold, transfer
from command_server.kernel.context import Context

CONTEXT = Context(
    "banking",
    commands=(command_service_pb2,),
    events=(events_pb2,),
    deciders=(accounts.DECIDER, hold.DECIDER, transfer.DECIDER),
)
