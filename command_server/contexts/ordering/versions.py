"""Earlier versions of ordering's requests and events in terms of later ones. The domain knows the newest."""

from diptych.ordering.v1 import command_service_pb2 as requests_v1
from diptych.ordering.v1 import events_pb2 as events_v1
from diptych.ordering.v1.types_pb2 import ShippingGroup
from diptych.ordering.v2 import command_service_pb2 as requests_v2
from diptych.ordering.v2 import events_pb2 as events_v2

from command_server.kernel.versions import NewerVersion

ONLY_GROUP = "main"
"""The shipping group of an order that was placed with one alone."""


def place_order(request: requests_v1.PlaceOrderRequest) -> requests_v2.PlaceOrderRequest:
    """An order that travels in one piece is an order of one group."""
    group = ShippingGroup(
        shipping_group_id=ONLY_GROUP,
        lines=request.lines,
        shipping_address=request.shipping_address,
        warehouse_id=request.warehouse_id,
    )
    return requests_v2.PlaceOrderRequest(
        request_id=request.request_id,
        order_id=request.order_id,
        customer_id=request.customer_id,
        shipping_groups=[group],
        account_id=request.account_id,
    )


def order_placed(event: events_v1.OrderPlaced) -> events_v2.OrderPlaced:
    """So is one that was placed before there were groups."""
    group = events_v2.PlacedGroup(
        shipping_group_id=ONLY_GROUP,
        lines=event.lines,
        warehouse_id=event.warehouse_id,
        personal=event.personal,
    )
    return events_v2.OrderPlaced(
        order_id=event.order_id,
        customer_id=event.customer_id,
        groups=[group],
        total=event.total,
        account_id=event.account_id,
        placed_at=event.placed_at,
    )


NEWER = (
    NewerVersion(requests_v1.PlaceOrderRequest, requests_v2.PlaceOrderRequest, place_order),
    NewerVersion(events_v1.OrderPlaced, events_v2.OrderPlaced, order_placed),
)
