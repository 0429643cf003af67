"""The events of ordering, and the upcaster of orders that were placed without shipping groups."""

from diptych.ordering.v1 import events_pb2 as v1
from diptych.ordering.v2 import events_pb2 as v2

from contracts.event_types import EventTypes
from contracts.upcasters import Upcaster

ONLY_GROUP = "main"
"""Shipping group id of an order that was placed without groups (v1)."""


def upcast_order_placed(event: v1.OrderPlaced) -> v2.OrderPlaced:
    """Put all lines of the order into one shipping group."""
    group = v2.PlacedGroup(
        shipping_group_id=ONLY_GROUP,
        lines=event.lines,
        warehouse_id=event.warehouse_id,
        personal=event.personal,
    )
    return v2.OrderPlaced(
        order_id=event.order_id,
        customer_id=event.customer_id,
        groups=[group],
        total=event.total,
        account_id=event.account_id,
        placed_at=event.placed_at,
    )


EVENTS = EventTypes((v1, v2), upcasters=(Upcaster(v1.OrderPlaced, v2.OrderPlaced, upcast_order_placed),))
