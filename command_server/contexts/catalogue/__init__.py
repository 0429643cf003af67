"""The catalogue: products with their details and prices, and the tree of categories."""

from diptych.catalogue.v1 import command_service_pb2

from command_server.contexts.catalogue.domain import category_tree, product
from command_server.kernel.context import Context
from contracts.events.catalogue import EVENTS

CONTEXT = Context(
    "catalogue",
    commands=(command_service_pb2,),
    events=EVENTS,
    deciders=(product.DECIDER, product.ASSIGNMENT_DECIDER, category_tree.DECIDER),
)
