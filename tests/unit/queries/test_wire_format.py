"""Responses built from stored bytes equal the responses that Protobuf serialises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_server.wire_format import encode_field
from tests.support.ledger.stubs import queries, types


@pytest.mark.parametrize("length", [0, 1, 100, 127, 128, 16_383, 16_384, 3_000_000])
def test_an_encoded_view_equals_the_serialised_response(length: int) -> None:
    cheque = types.Cheque(cheque_id="c-1", void_reason="x" * length)
    stored = cheque.SerializeToString()
    assert encode_field(1, stored) == queries.GetChequeResponse(cheque=cheque).SerializeToString()


@given(st.lists(st.text(max_size=300), max_size=20), st.text(min_size=1, max_size=200))
def test_joined_fields_equal_the_serialised_list(reasons: list[str], token: str) -> None:
    cheques = [types.Cheque(cheque_id=f"c-{n}", void_reason=reason) for n, reason in enumerate(reasons)]
    encoded = b"".join(encode_field(1, cheque.SerializeToString()) for cheque in cheques)
    encoded += encode_field(2, token.encode())
    assert encoded == queries.ListChequesResponse(cheques=cheques, next_page_token=token).SerializeToString()
