"""The events of fulfilment."""

from diptych.fulfilment.v1 import events_pb2

from contracts.event_types import EventTypes

EVENTS = EventTypes((events_pb2,))
