"""Upcasters of ordering's requests, applied before a request becomes a command."""

from diptych.ordering.v1 import command_service_pb2 as v1
from diptych.ordering.v2 import command_service_pb2 as v2

from contracts.events.ordering import ONLY_GROUP
from contracts.upcasters import Upcaster


def upcast_place_order(request: v1.PlaceOrderRequest) -> v2.PlaceOrderRequest:
    """Put the whole order into one shipping group."""
    newer = v2.PlaceOrderRequest(
        request_id=request.request_id,
        order_id=request.order_id,
        customer_id=request.customer_id,
        account_id=request.account_id,
        quotes=request.quotes,
    )
    newer.shipping_groups.add(
        shipping_group_id=ONLY_GROUP,
        lines=request.lines,
        shipping_address=request.shipping_address,
        warehouse_id=request.warehouse_id,
    )
    return newer


REQUEST_UPCASTERS = (Upcaster(v1.PlaceOrderRequest, v2.PlaceOrderRequest, upcast_place_order),)
