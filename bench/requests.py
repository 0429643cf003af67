"""The requests of the bench: orders of three lines, about 600 bytes each, and claims of one SKU or show."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from diptych.customers.v1.command_service_pb2 import RegisterCustomerRequest
from diptych.inventory.v1.command_service_pb2 import (
    RaisePurchaseOrderRequest,
    ReceiveGoodsRequest,
    ReceiveStockRequest,
    RegisterProductRequest,
    ReserveStockRequest,
    SendToSupplierRequest,
)
from diptych.inventory.v1.types_pb2 import (
    RECEIPT_REASON_OPENING,
    DeliveredLine,
    PurchaseLine,
    ReservationLine,
)
from diptych.ordering.v1.command_service_pb2 import PlaceOrderRequest
from diptych.ordering.v1.query_service_pb2 import GetOrderRequest
from diptych.ordering.v1.types_pb2 import OrderLine, ShippingAddress
from diptych.ticketing.v1.command_service_pb2 import HoldSeatsRequest, ScheduleShowRequest
from diptych.ticketing.v1.types_pb2 import LocalTime, Row, Section
from google.type.money_pb2 import Money

COMMANDS = 1_000
"""Commands of a requests file whose calls get request ids of their own, so that it may be sent repeatedly."""
READS = 20_000
"""Reads of a requests file that is sent for a time rather than once."""
STRIDE = 7919
"""A prime: reads visit the orders in another order than that in which they were placed."""


def generate_orders(count: int, prefix: str = "", first: int = 0) -> Iterator[PlaceOrderRequest]:
    """Yield PlaceOrder requests, each with its own request id.

    Args:
        count: the number of requests.
        prefix: order ids are this prefix and a number; if it is empty, the server assigns them.
        first: the number of the first order.
    """
    for number in range(first, first + count):
        yield PlaceOrderRequest(
            request_id=str(uuid4()),
            order_id=f"{prefix}{number}" if prefix else "",
            customer_id=f"customer-{number % 1000}",
            lines=[_make_line(sku) for sku in range(3)],
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


def _make_line(number: int) -> OrderLine:
    price = Money(currency_code="EUR", units=19 + number, nanos=990_000_000)
    return OrderLine(sku=f"sku-{number}", title="A thing of some use", quantity=1 + number, unit_price=price)


def generate_reads(prefix: str, placed: int, first: int, count: int) -> Iterator[GetOrderRequest]:
    """Yield GetOrder requests, spread over the orders of `generate_orders`.

    Args:
        prefix: of the order ids.
        placed: the number of orders.
        first: the number of earlier reads, so that successive calls read all orders.
        count: the number of requests.
    """
    for number in range(first, first + count):
        yield GetOrderRequest(order_id=f"{prefix}{number * STRIDE % placed}")


def create_stock_requests() -> tuple[RegisterProductRequest, ReceiveStockRequest]:
    """Return the requests that precede reservations: one product, and a million pieces of it."""
    return (
        RegisterProductRequest(request_id=str(uuid4()), sku="sku-1", title="A thing of some use"),
        ReceiveStockRequest(
            request_id=str(uuid4()),
            sku="sku-1",
            warehouse_id="warehouse-1",
            quantity=1_000_000,
            reason=RECEIPT_REASON_OPENING,
            delivery_note="note-1",
        ),
    )


def generate_reservations(count: int) -> Iterator[ReserveStockRequest]:
    """Yield ReserveStock requests for one piece each, all of the same stock."""
    deadline = datetime.now(UTC) + timedelta(days=1)
    for _ in range(count):
        name = str(uuid4())
        yield ReserveStockRequest(
            request_id=name,
            reservation_id=name,
            lines=[ReservationLine(sku="sku-1", warehouse_id="warehouse-1", quantity=1)],
            deadline=deadline,  # type: ignore[arg-type] # Protobuf takes a datetime
        )


def generate_registrations(count: int) -> Iterator[RegisterCustomerRequest]:
    """Yield RegisterCustomer requests, each with an email address of its own."""
    for _ in range(count):
        name = str(uuid4())
        yield RegisterCustomerRequest(request_id=name, name="Erika Mustermann", email=f"{name}@example.com")


def create_purchase(order_id: str) -> tuple[RaisePurchaseOrderRequest, SendToSupplierRequest]:
    """Return the requests that precede deliveries: an order of a million pieces of the product."""
    line = PurchaseLine(sku="sku-1", quantity=1_000_000)
    line.unit_price.currency_code = "EUR"
    return (
        RaisePurchaseOrderRequest(
            request_id=str(uuid4()),
            purchase_order_id=order_id,
            supplier_id="supplier-1",
            warehouse_id="warehouse-1",
            lines=[line],
        ),
        SendToSupplierRequest(request_id=str(uuid4()), purchase_order_id=order_id, expected_on="2199-01-31"),
    )


def generate_deliveries(order_id: str, count: int) -> Iterator[ReceiveGoodsRequest]:
    """Yield ReceiveGoods requests for one piece each, all of the same order."""
    for _ in range(count):
        name = str(uuid4())
        yield ReceiveGoodsRequest(
            request_id=name,
            purchase_order_id=order_id,
            delivery_note=name,
            lines=[DeliveredLine(sku="sku-1", quantity=1)],
        )


def create_show(show_id: str) -> ScheduleShowRequest:
    """Return the request that precedes holds: a show of 10,000 seats in 20 sections."""
    rows = [Row(label=f"R{number}", seats=50) for number in range(10)]
    price = Money(currency_code="EUR", units=40)
    return ScheduleShowRequest(
        request_id=str(uuid4()),
        show_id=show_id,
        title="A show of some use",
        venue="The hall",
        place_id="cologne",
        doors=LocalTime(year=datetime.now(UTC).year + 2, month=7, day=1, hour=20, time_zone="Europe/Berlin"),
        sections=[Section(section_id=f"s-{number}", price=price, rows=rows) for number in range(20)],
        seats_per_buyer=20,
    )


def generate_holds(show_id: str, count: int) -> Iterator[HoldSeatsRequest]:
    """Yield HoldSeats requests for two seats each, all of the same show, by a buyer each."""
    deadline = datetime.now(UTC) + timedelta(minutes=55)
    for number in range(count):
        name = str(uuid4())
        yield HoldSeatsRequest(
            request_id=name,
            booking_id=name,
            show_id=show_id,
            section_id=f"s-{number % 20}",
            buyer_id=name,
            count=2,
            deadline=deadline,  # type: ignore[arg-type] # Protobuf takes a datetime
        )
