"""Ordering: orders from placing to their end."""

from diptych.ordering.v1 import command_service_pb2, events_pb2

from command_server.contexts.ordering.domain import order
from command_server.kernel.context import Context

CONTEXT = Context("ordering", commands=command_service_pb2, events=events_pb2, deciders=(order.DECIDER,))
