"""What the bench asks: ordinary orders of three lines, about 600 bytes each, and reservations of one sku."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from diptych.inventory.v1.command_service_pb2 import (
    ReceiveStockRequest,
    RegisterProductRequest,
    ReserveStockRequest,
)
from diptych.inventory.v1.types_pb2 import ReservationLine
from diptych.ordering.v1.command_service_pb2 import PlaceOrderRequest
from diptych.ordering.v1.query_service_pb2 import GetOrderRequest
from diptych.ordering.v1.types_pb2 import OrderLine, ShippingAddress
from google.type.money_pb2 import Money

STRIDE = 7919
"""A prime, so that ids are read in an order other than that in which they were placed."""


def orders(count: int, prefix: str = "", first: int = 0) -> Iterator[PlaceOrderRequest]:
    """Yield requests for orders, each with a request id of its own.

    Args:
        count: how many.
        prefix: orders are called by it and their number; where it is empty, the server names them.
        first: the number of the first.
    """
    for number in range(first, first + count):
        yield PlaceOrderRequest(
            request_id=str(uuid4()),
            order_id=f"{prefix}{number}" if prefix else "",
            customer_id=f"customer-{number % 1000}",
            lines=[_line(sku) for sku in range(3)],
            shipping_address=ShippingAddress(
                recipient="Erika Mustermann",
                address_lines=["Heidestraße 17"],
                postal_code="51147",
                locality="Köln",
                region_code="DE",
            ),
            account_id=f"account-{number % 1000}",
            warehouse_id="warehouse-1",
        )


def _line(number: int) -> OrderLine:
    price = Money(currency_code="EUR", units=19 + number, nanos=990_000_000)
    return OrderLine(sku=f"sku-{number}", title="A thing of some use", quantity=1 + number, unit_price=price)


def reads(prefix: str, placed: int, first: int, count: int) -> Iterator[GetOrderRequest]:
    """Yield reads of orders that `orders` placed, all over them.

    Args:
        prefix: theirs.
        placed: how many there are.
        first: how many reads went before; so several calls together read all orders.
        count: how many reads.
    """
    for number in range(first, first + count):
        yield GetOrderRequest(order_id=f"{prefix}{number * STRIDE % placed}")


def stock() -> tuple[RegisterProductRequest, ReceiveStockRequest]:
    """Return what there must be before anything can be reserved: a product, and a million pieces of it."""
    return (
        RegisterProductRequest(request_id=str(uuid4()), sku="sku-1", title="A thing of some use"),
        ReceiveStockRequest(
            request_id=str(uuid4()),
            sku="sku-1",
            warehouse_id="warehouse-1",
            quantity=1_000_000,
            purchase_order="purchase-1",
            delivery_note="note-1",
        ),
    )


def reservations(count: int) -> Iterator[ReserveStockRequest]:
    """Yield requests for one piece each, all of the same sku in the same warehouse."""
    deadline = datetime.now(UTC) + timedelta(days=1)
    for _ in range(count):
        name = str(uuid4())
        yield ReserveStockRequest(
            request_id=name,
            reservation_id=name,
            lines=[ReservationLine(sku="sku-1", warehouse_id="warehouse-1", quantity=1)],
            deadline=deadline,  # type: ignore[arg-type] # Protobuf takes a datetime
        )
