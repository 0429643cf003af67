"""Fulfilment: the progress of orders' fulfilments, as their sagas record it."""

from diptych.fulfilment.v1 import command_service_pb2

from command_server.contexts.fulfilment.domain import fulfilment
from command_server.kernel.context import Context
from contracts.events.fulfilment import EVENTS

CONTEXT = Context(
    "fulfilment", commands=(command_service_pb2,), events=EVENTS, deciders=(fulfilment.DECIDER,)
)
