"""Ordering: orders from placing to delivery, cancellation or return, and the activity of customers."""

from diptych.ordering.v1 import command_service_pb2 as commands_v1
from diptych.ordering.v2 import command_service_pb2 as commands_v2
from diptych.pricing.v1.quote_pb2 import Quote as PricingQuote

from command_server.contexts.ordering.domain import customer_activity, order
from command_server.contexts.ordering.domain.messages import Quote
from command_server.contexts.ordering.upcasters import REQUEST_UPCASTERS
from command_server.kernel.context import Context
from command_server.kernel.signed_values import SignedValues
from contracts.events.ordering import EVENTS
from contracts.key_ring import Purpose

CONTEXT = Context(
    "ordering",
    commands=(commands_v1, commands_v2),
    events=EVENTS,
    deciders=(order.DECIDER, customer_activity.DECIDER),
    request_upcasters=REQUEST_UPCASTERS,
    signed_values=SignedValues(Purpose.QUOTE, PricingQuote, Quote),
)
