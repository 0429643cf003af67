"""Requests are decoded and checked before they reach a handler."""

from typing import Any
from uuid import uuid4

import pytest
from diptych.banking.v1.command_service_pb2 import PlaceHoldRequest
from diptych.banking.v1.query_service_pb2 import ListTransactionsRequest
from diptych.ordering.v1.command_service_pb2 import ConfirmOrderRequest, PlaceOrderRequest
from diptych.ordering.v1.types_pb2 import OrderLine, ShippingAddress
from google.protobuf import struct_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from runtime.grpc.method import Method
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.validation import validate


async def handler(request: Any, context: Any) -> Any:
    return request


async def check(request: Message) -> Any:
    method = Method(path="/test/Do", request=type(request), scope="test", streams=False)
    return await validate(method, handler)(request.SerializeToString(), None)  # type: ignore[arg-type]


async def violations(request: Message) -> dict[str, str]:
    with pytest.raises(RpcError) as caught:
        await check(request)
    assert caught.value.reason == "REQUEST_INVALID"
    return caught.value.violations


def place_order(**changes: Any) -> PlaceOrderRequest:
    price = Money(currency_code="EUR", units=3, nanos=990_000_000)
    fields: dict[str, Any] = {
        "request_id": str(uuid4()),
        "customer_id": "c-1",
        "account_id": "a-1",
        "warehouse_id": "w-1",
        "lines": [OrderLine(sku=f"sku-{n}", title="Tea", quantity=1, unit_price=price) for n in range(3)],
        "shipping_address": ShippingAddress(
            recipient="Ada", address_lines=["Lane 1", "Back door"], locality="Oslo", region_code="NO"
        ),
    }
    return PlaceOrderRequest(**(fields | changes))


async def test_a_valid_request_reaches_the_handler_as_a_message() -> None:
    request = place_order()
    assert await check(request) == request


async def test_a_violation_names_its_field_however_deep() -> None:
    request = place_order()
    request.lines[1].quantity = 0
    request.shipping_address.address_lines[1] = ""
    assert set(await violations(request)) == {"lines[1].quantity", "shipping_address.address_lines[1]"}


async def test_a_violated_cel_rule_is_reported_with_its_message() -> None:
    request = place_order()
    request.lines[2].unit_price.units = -1
    assert "not negative" in (await violations(request))["lines[2].unit_price"]


@pytest.mark.parametrize(
    ("path", "spoil"),
    [
        ("lines[1].title", lambda request: setattr(request.lines[1], "title", "T\0")),
        ("shipping_address.recipient", lambda request: setattr(request.shipping_address, "recipient", "\0")),
        (
            "shipping_address.address_lines[1]",
            lambda request: request.shipping_address.address_lines.__setitem__(1, "a\0b"),
        ),
    ],
)
async def test_a_nul_is_rejected_in_nested_and_repeated_strings(path: str, spoil: Any) -> None:
    request = place_order()
    spoil(request)
    assert await violations(request) == {path: "holds U+0000"}


async def test_a_nul_is_rejected_in_the_keys_and_values_of_maps() -> None:
    request = struct_pb2.Struct()
    request["good"] = "bad\0"
    assert await violations(request) == {"fields[good].string_value": "holds U+0000"}
    request = struct_pb2.Struct()
    request["b\0d"] = "good"
    assert await violations(request) == {"fields": "holds U+0000"}


async def test_a_zero_byte_outside_of_strings_is_accepted() -> None:
    request = ConfirmOrderRequest(request_id=str(uuid4()), order_id="o-1", expected_version=0)
    assert b"\0" in request.SerializeToString()
    assert await check(request) == request


@pytest.mark.parametrize(
    ("seconds", "nanos"), [(113, -1), (113, 10**9), (253_402_300_800, 0), (-62_135_596_801, 0), (2**62, 0)]
)
async def test_a_timestamp_that_is_no_time_names_its_field(seconds: int, nanos: int) -> None:
    request = PlaceHoldRequest(
        request_id=str(uuid4()),
        hold_id="h-1",
        account_id="a-1",
        amount=Money(currency_code="EUR", units=3),
        deadline=Timestamp(seconds=seconds, nanos=nanos),
        reference="order",
    )
    assert await violations(request) == {"deadline": "is no time"}


@pytest.mark.parametrize(("seconds", "nanos"), [(253_402_300_799, 999_999_999), (-62_135_596_800, 0)])
async def test_the_first_and_the_last_timestamp_are_times(seconds: int, nanos: int) -> None:
    request = ListTransactionsRequest(account_id="a-1", booked_before=Timestamp(seconds=seconds, nanos=nanos))
    assert await check(request) == request
