"""Ordering: orders from placing to delivery, cancellation or return."""

from diptych.ordering.v1 import command_service_pb2 as commands_v1
from diptych.ordering.v1 import events_pb2 as events_v1
from diptych.ordering.v2 import command_service_pb2 as commands_v2
from diptych.ordering.v2 import events_pb2 as events_v2

from command_server.contexts.ordering.domain import order
from command_server.contexts.ordering.upcasters import REQUEST_UPCASTERS
from command_server.kernel.context import Context
from contracts.upcasters.ordering import EVENT_UPCASTERS

CONTEXT = Context(
    "ordering",
    commands=(commands_v1, commands_v2),
    events=(events_v1, events_v2),
    deciders=(order.DECIDER,),
    upcasters=(*REQUEST_UPCASTERS, *EVENT_UPCASTERS),
)
