"""Responses built from stored bytes equal the responses that Protobuf serialises."""

import pytest
from diptych.ordering.v1.query_service_pb2 import GetOrderResponse, ListOrdersResponse
from diptych.ordering.v1.types_pb2 import Order
from hypothesis import given
from hypothesis import strategies as st

from query_server.wire_format import encode_field


@pytest.mark.parametrize("length", [0, 1, 100, 127, 128, 16_383, 16_384, 3_000_000])
def test_an_encoded_view_equals_the_serialised_response(length: int) -> None:
    order = Order(order_id="o-1", cancel_reason="x" * length)
    stored = order.SerializeToString()
    assert encode_field(1, stored) == GetOrderResponse(order=order).SerializeToString()


@given(st.lists(st.text(max_size=300), max_size=20), st.text(min_size=1, max_size=200))
def test_joined_fields_equal_the_serialised_list(reasons: list[str], token: str) -> None:
    orders = [Order(order_id=f"o-{n}", cancel_reason=reason) for n, reason in enumerate(reasons)]
    encoded = b"".join(encode_field(1, order.SerializeToString()) for order in orders)
    encoded += encode_field(2, token.encode())
    assert encoded == ListOrdersResponse(orders=orders, next_page_token=token).SerializeToString()
