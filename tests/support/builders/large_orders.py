"""The largest orders that the rules allow: 100 lines in 10 shipping groups, all texts at their limits."""

from uuid import uuid4

from diptych.ordering.v1.types_pb2 import OrderLine, ShippingAddress, ShippingGroup
from diptych.ordering.v2.command_service_pb2 import PlaceOrderRequest
from google.type.money_pb2 import Money

GROUPS, LINES_PER_GROUP = 10, 10
WIDE = "\N{GRINNING FACE}"
"""A character of four bytes in UTF-8, the most that any has."""


def large_order(
    customer_id: str, account_id: str, skus: list[str], warehouse_id: str = "w-1"
) -> PlaceOrderRequest:
    """Return an order with 100 lines, each of one piece for one cent.

    Args:
        customer_id: the customer.
        account_id: the account that pays.
        skus: the articles of each group, LINES_PER_GROUP.
        warehouse_id: ships all groups.
    """
    price = Money(currency_code="EUR", nanos=10_000_000)
    lines = [OrderLine(sku=sku, title=WIDE * 200, quantity=1, unit_price=price) for sku in skus]
    address = ShippingAddress(
        recipient=WIDE * 200,
        address_lines=[WIDE * 200] * 4,
        postal_code=WIDE * 20,
        locality=WIDE * 200,
        region_code="DE",
    )
    groups = [
        ShippingGroup(
            shipping_group_id=f"{number:064}",
            lines=lines,
            shipping_address=address,
            warehouse_id=warehouse_id,
        )
        for number in range(GROUPS)
    ]
    return PlaceOrderRequest(
        request_id=str(uuid4()),
        order_id=uuid4().hex,
        customer_id=customer_id,
        account_id=account_id,
        shipping_groups=groups,
    )
