"""Ticketing: shows, and the bookings of their seats."""

from diptych.ticketing.v1 import command_service_pb2

from command_server.contexts.ticketing.domain import booking, show, waiting_list
from command_server.kernel.context import Context
from contracts.events.ticketing import EVENTS

CONTEXT = Context(
    "ticketing",
    commands=(command_service_pb2,),
    events=EVENTS,
    deciders=(show.DECIDER, booking.DECIDER, waiting_list.DECIDER),
)
