"""What a hostile customer tries who knows protos and docs: no other's things, money or prices."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from diptych.catalogue.v1 import command_service_pb2 as catalogue
from diptych.catalogue.v1 import query_service_pb2 as catalogue_queries
from diptych.catalogue.v1.types_pb2 import ProductDetails
from diptych.ordering.v1.types_pb2 import ShippingGroup
from diptych.ordering.v2 import command_service_pb2 as ordering_v2
from google.type.money_pb2 import Money

from devstack.stack import Stack
from tests.support.harness.caller import Caller
from tests.support.harness.shop import order_of

CUSTOMER_SCOPES = ("ordering.place", "ordering.read", "ordering.own", "catalogue.quote", "catalogue.own")
STAFF_SCOPES = (
    "ordering.place",
    "ordering.own-prices",
    "ordering.read",
    "catalogue.write",
    "catalogue.quote",
)


@pytest.fixture
async def mallory(stack: Stack) -> AsyncIterator[Caller]:
    """A customer of the shop, with the scopes of a customer."""
    caller = Caller(stack, *CUSTOMER_SCOPES, subject="mallory")
    yield caller
    await caller.close()


@pytest.fixture
async def staff(stack: Stack) -> AsyncIterator[Caller]:
    caller = Caller(stack, *STAFF_SCOPES, subject="staff")
    yield caller
    await caller.close()


async def publish_lamp(staff: Caller) -> tuple[str, str]:
    """Publish a lamp for 90 euros; return its sku and the consistency token."""
    sku, price = f"lamp-{uuid4().hex[:8]}", Money(currency_code="EUR", units=90)
    await staff.execute(catalogue.DraftProductRequest(sku=sku))
    details = ProductDetails(title="Lamp")
    await staff.execute(catalogue.ChangeDetailsRequest(sku=sku, details=details))
    await staff.execute(catalogue.SetPriceRequest(sku=sku, price=price))
    return sku, (await staff.execute(catalogue.PublishProductRequest(sku=sku))).consistency_token


def order_lamps(customer: str, sku: str, units: int, *quotes: str, version: int = 1) -> Any:
    """Return the order of a hundred lamps at a price."""
    request = order_of(customer, order_id=uuid4().hex, quotes=quotes)
    (line,) = request.lines
    line.sku, line.quantity = sku, 100
    line.unit_price.CopyFrom(Money(currency_code="EUR", units=units))
    if version == 1:
        return request
    group = ShippingGroup(shipping_group_id="main", lines=request.lines, warehouse_id=request.warehouse_id)
    group.shipping_address.CopyFrom(request.shipping_address)
    return ordering_v2.PlaceOrderRequest(
        order_id=request.order_id,
        customer_id=customer,
        account_id=request.account_id,
        quotes=quotes,
        shipping_groups=[group],
    )


async def test_nobody_gets_a_hundred_lamps_for_nothing(mallory: Caller, staff: Caller) -> None:
    sku, token = await publish_lamp(staff)

    async def quote(caller: Caller, customer: str) -> str:
        request = catalogue_queries.QuotePricesRequest(
            customer_id=customer, skus=[sku], at_least_as_fresh=token
        )
        (quoted,) = (await caller.query(request)).quotes
        assert quoted.price.units == 90
        return str(quoted.quote)

    own, of_ada = await quote(mallory, "mallory"), await quote(staff, "ada")
    for version in (1, 2):
        attempts = {
            "QUOTE_MISSING": order_lamps("mallory", sku, 0, version=version),
            "QUOTE_OF_ANOTHER_PRICE": order_lamps("mallory", sku, 0, own, version=version),
            "QUOTE_OF_ANOTHER_CUSTOMER": order_lamps("mallory", sku, 90, of_ada, version=version),
            "QUOTE_INVALID": order_lamps("mallory", sku, 90, f"AAAA{own[4:]}", version=version),
            "NOT_THE_OWNER": order_lamps("ada", sku, 90, of_ada, version=version),
        }
        for reason, request in attempts.items():
            assert await mallory.rejection_reason(request) == reason
    for_ada = catalogue_queries.QuotePricesRequest(customer_id="ada", skus=[sku])
    assert await mallory.rejection_reason(for_ada) == "NOT_THE_OWNER"
    await mallory.execute(order_lamps("mallory", sku, 90, own))
