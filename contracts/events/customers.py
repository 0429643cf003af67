"""The events of customers."""

from diptych.customers.v1 import events_pb2

from contracts.event_types import EventTypes

EVENTS = EventTypes((events_pb2,))
