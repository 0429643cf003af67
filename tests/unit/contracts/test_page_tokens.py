"""Minted page tokens can be read again, and no other strings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import page_tokens
from contracts.view_layout import index_member
from runtime.grpc.request_tokens import read_page_token
from runtime.grpc.rpc_error import RpcError

INDEX = "index:ledger.cheque:2:{account/a-1}"
MEMBERS = st.builds(
    index_member, st.integers(0, 2**63), st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
)


def read_error(index: str, token: str) -> str:
    """Return the reason of the error that reading a token raises."""
    with pytest.raises(RpcError) as error:
        read_page_token(index, token)
    return error.value.reason


@given(MEMBERS)
def test_a_token_contains_the_last_record_of_its_page(member: str) -> None:
    assert page_tokens.read(INDEX, page_tokens.mint(INDEX, member)) == member


def test_no_token_is_the_first_page() -> None:
    assert page_tokens.read(INDEX, "") == ""


@given(MEMBERS)
def test_a_token_of_other_filters_is_rejected(member: str) -> None:
    token = page_tokens.mint("index:ledger.cheque:2:{account/a-2}", member)
    assert read_error(INDEX, token) == "PAGE_TOKEN_INVALID"


@given(st.text(min_size=1, max_size=200))
def test_garbage_is_rejected(garbage: str) -> None:
    assert read_error(INDEX, garbage) == "PAGE_TOKEN_INVALID"


@given(MEMBERS, st.data())
def test_a_truncated_or_extended_token_is_rejected(member: str, data: st.DataObject) -> None:
    token = page_tokens.mint(INDEX, member)
    truncated = token[: data.draw(st.integers(1, len(token) - 1))]
    for invalid in (truncated, token + "=", token + "AAAA", token[:4] + "!" + token[4:]):
        assert read_error(INDEX, invalid) == "PAGE_TOKEN_INVALID"
