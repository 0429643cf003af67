"""Inventory: products, their stock per warehouse, reservations, transfers and purchase orders."""

from diptych.inventory.v1 import command_service_pb2

from command_server.contexts.inventory.domain import (
    product,
    purchase_order,
    reservation,
    stockkeeping,
    transfer,
)
from command_server.kernel.context import Context
from contracts.events.inventory import EVENTS

CONTEXT = Context(
    "inventory",
    commands=(command_service_pb2,),
    events=EVENTS,
    deciders=(
        product.DECIDER,
        stockkeeping.DECIDER,
        reservation.DECIDER,
        transfer.DECIDER,
        purchase_order.DECIDER,
    ),
)
