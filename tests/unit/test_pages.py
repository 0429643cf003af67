"""Page tokens come back as they were minted, and nothing else is one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import pages
from runtime.errors import Refusal
from runtime.views import index_member

INDEX = "index:ordering.order:1:{customer/c-1}"
MEMBERS = st.builds(
    index_member, st.integers(0, 2**63), st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
)


def refused(index: str, token: str) -> str:
    with pytest.raises(Refusal) as refusal:
        pages.read(index, token)
    return refusal.value.reason


@given(MEMBERS)
def test_a_token_says_where_the_next_page_begins(member: str) -> None:
    assert pages.read(INDEX, pages.mint(INDEX, member)) == member


def test_no_token_is_the_first_page() -> None:
    assert pages.read(INDEX, "") == ""


@given(MEMBERS)
def test_a_token_of_other_filters_is_refused(member: str) -> None:
    token = pages.mint("index:ordering.order:1:{customer/c-2}", member)
    assert refused(INDEX, token) == "PAGE_TOKEN_INVALID"


@given(st.text(min_size=1, max_size=200))
def test_garbage_is_refused(garbage: str) -> None:
    assert refused(INDEX, garbage) == "PAGE_TOKEN_INVALID"


@given(MEMBERS, st.data())
def test_a_token_that_was_cut_or_lengthened_is_refused(member: str, data: st.DataObject) -> None:
    token = pages.mint(INDEX, member)
    cut = token[: data.draw(st.integers(1, len(token) - 1))]
    for wrong in (cut, token + "=", token + "AAAA", token[:4] + "!" + token[4:]):
        assert refused(INDEX, wrong) == "PAGE_TOKEN_INVALID"
