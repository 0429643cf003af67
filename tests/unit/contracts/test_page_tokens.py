"""Minted page tokens can be read again by the same caller for the same list, and no other strings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.view_layout import index_member
from runtime.grpc import caller, request_tokens
from runtime.grpc.caller import Caller
from runtime.grpc.rpc_error import RpcError
from tests.support.harness.keys import TOKENS
from tests.support.ledger.stubs import queries

INDEX = "index:ledger.cheque:2:{account/a-1}"
MEMBERS = st.builds(
    index_member, st.integers(0, 2**63), st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
)


def mint(last: str, index: str = INDEX) -> str:
    return TOKENS.mint_page_token(queries.ListChequesRequest(), index, last)


def read(token: str) -> str:
    return TOKENS.read_page_token(queries.ListChequesRequest(page_token=token), INDEX)


def is_refused(token: str) -> bool:
    with pytest.raises(RpcError) as error:
        read(token)
    return error.value.reason == "PAGE_TOKEN_INVALID"


@given(MEMBERS)
def test_a_token_contains_the_last_record_of_its_page(member: str) -> None:
    assert read(mint(member)) == member


def test_no_token_is_the_first_page() -> None:
    assert read("") == ""


@given(MEMBERS)
def test_a_token_of_other_filters_is_rejected(member: str) -> None:
    assert is_refused(mint(member, "index:ledger.cheque:2:{account/a-2}"))


def test_a_signed_token_that_is_no_text_is_rejected() -> None:
    request = queries.ListChequesRequest()
    token = TOKENS._page_tokens._signer.sign(b"\xff", request_tokens._scope(request, INDEX))
    assert is_refused(token)


def test_a_token_of_another_method_is_rejected() -> None:
    assert is_refused(TOKENS.mint_page_token(queries.GetChequeHistoryRequest(), INDEX, "last"))


def test_a_token_of_another_caller_is_rejected() -> None:
    token = mint("last")
    reset = caller._CALLER.set(Caller("somebody else", frozenset()))
    try:
        assert is_refused(token)
        assert read(mint("last")) == "last"
    finally:
        caller._CALLER.reset(reset)


def test_a_resume_token_is_no_page_token() -> None:
    assert is_refused(TOKENS.mint_resume_token(INDEX, "last"))


@given(st.text(min_size=1, max_size=200))
def test_garbage_is_rejected(garbage: str) -> None:
    assert is_refused(garbage)


@given(MEMBERS, st.data())
def test_a_truncated_or_extended_token_is_rejected(member: str, data: st.DataObject) -> None:
    token = mint(member)
    truncated = token[: data.draw(st.integers(1, len(token) - 1))]
    for invalid in (truncated, token + "=", token + "AAAA", token[:4] + "!" + token[4:]):
        assert is_refused(invalid)
