"""Parts of the demo's requests and responses: an order, an amount as text."""

from uuid import uuid4

from diptych.ordering.v1.command_service_pb2 import PlaceOrderRequest
from diptych.ordering.v1.types_pb2 import OrderLine, ShippingAddress
from google.type.money_pb2 import Money

PRICES = {"lamp-1": (19, 990_000_000), "desk-1": (90, 0), "vase-1": (60, 0)}
"""Units and nanos in EUR by sku."""


def order_of(customer: str, quantity: int) -> PlaceOrderRequest:
    """Return a customer's order of some lamps."""
    price = Money(currency_code="EUR", units=19, nanos=990_000_000)
    return PlaceOrderRequest(
        request_id=str(uuid4()),
        customer_id=customer,
        lines=[OrderLine(sku="lamp-1", title="A lamp", quantity=quantity, unit_price=price)],
        shipping_address=ShippingAddress(
            recipient="Ada", address_lines=["Main Street 1"], locality="Berlin", region_code="DE"
        ),
        account_id="a-1",
        warehouse_id="w-1",
    )


def format_amount(money: Money) -> str:
    return f"{money.units}.{money.nanos // 10_000_000:02} {money.currency_code}"
