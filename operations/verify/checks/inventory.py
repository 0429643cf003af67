"""Inventory's folds and sagas, and whether purchase orders match the reorder alerts that raised them."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from diptych.inventory.v1.command_service_pb2 import RaisePurchaseOrderRequest
from diptych.inventory.v1.events_pb2 import ReorderAlertRaised, ReservationMade
from diptych.inventory.v1.types_pb2 import PurchaseOrder
from google.protobuf.message import DecodeError

from operations.verify.checks.saga_effects import EffectsCheck, fold_streams, read_accepted_steps
from operations.verify.contexts.inventory import AGGREGATES
from operations.verify.model import Aggregate, Problem, SagaSpec
from operations.verify.sources import PostgresReader

__all__ = ["AGGREGATES", "SAGAS"]
SAGA = "inventory.reorder"
STREAM_TYPE = "inventory.purchase_order"


async def _check_page(
    postgres: PostgresReader, aggregates: Mapping[str, Aggregate], reorders: Sequence[Any]
) -> list[Problem]:
    steps = await read_accepted_steps(postgres, SAGA, reorders)
    orders = await fold_streams(postgres, aggregates, [f"{STREAM_TYPE}.{row.id}" for row in reorders])
    return [
        Problem("sagas", f"saga {SAGA} {row.id}", text)
        for row in reorders
        for text in _compare_steps(steps[row.id], orders.get(f"{STREAM_TYPE}.{row.id}"))
    ]


def _compare_steps(steps: Sequence[Any], order: PurchaseOrder | None) -> Iterator[str]:
    if len(steps) != 1:
        yield f"is RAISED, but {len(steps)} requests of it were accepted"
        return
    try:
        request = RaisePurchaseOrderRequest.FromString(steps[0].request)
    except DecodeError:
        yield "the request of a step cannot be read"
        return
    yield from compare(request, order)


def compare(request: RaisePurchaseOrderRequest, order: PurchaseOrder | None) -> Iterator[str]:
    """Yield the differences between a purchase order and the request that raised it."""
    if order is None:
        yield "is RAISED, but there is no such purchase order"
        return
    if (order.supplier_id, order.warehouse_id) != (request.supplier_id, request.warehouse_id):
        yield "its purchase order is of another supplier or warehouse"
    ordered = [(line.sku, line.quantity, line.unit_price) for line in order.lines]
    if ordered != [(line.sku, line.quantity, line.unit_price) for line in request.lines]:
        yield "its purchase order orders something else"


def find_deadline(event: Any) -> datetime | None:
    return event.deadline.ToDatetime(UTC) if isinstance(event, ReservationMade) else None


def get_ordered_id(message: Any) -> str:
    return str(message.purchase_order_id) if isinstance(message, ReorderAlertRaised) else ""


CHECK = EffectsCheck(SAGA, ("RAISED",), frozenset({STREAM_TYPE}), _check_page)
SAGAS = (
    SagaSpec("inventory.reservation_deadline", "inventory.reservation", deadline=find_deadline),
    SagaSpec(SAGA, "", CHECK.run, keys={"inventory.stock": get_ordered_id}),
)
