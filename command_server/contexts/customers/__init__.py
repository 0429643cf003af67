"""Customers: people with a name, addresses and an email address that nobody else has."""

from diptych.customers.v1 import command_service_pb2
from diptych.customers.v1.types_pb2 import Confirmation as SignedConfirmation

from command_server.contexts.customers.domain import customer
from command_server.contexts.customers.domain.email_claim import EMAIL_CLAIM
from command_server.contexts.customers.domain.messages import Confirmation
from command_server.kernel.context import Context
from command_server.kernel.signed_values import SignedValues
from command_server.kernel.unique_values import UniqueValues
from contracts.email_addresses import normalize_email
from contracts.events.customers import EVENTS
from contracts.key_ring import Purpose

CONTEXT = Context(
    "customers",
    commands=(command_service_pb2,),
    events=EVENTS,
    deciders=(customer.DECIDER, customer.EMAIL_DECIDER),
    signed_values=SignedValues(Purpose.CONFIRMATION, SignedConfirmation, Confirmation),
    unique_values=UniqueValues(EMAIL_CLAIM.stream_type, normalize_email),
)
