"""Only what a key of the ring has signed is accepted, for the purpose and context of its signature."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import pytest
from diptych.consistency.v1.consistency_pb2 import StreamVersion, Token
from hypothesis import given
from hypothesis import strategies as st

from contracts.consistency_tokens import ConsistencyTokens
from contracts.key_ring import KeyRing, Purpose
from contracts.signed_tokens import InvalidToken, TokenSigner
from runtime.grpc.rpc_error import RpcError
from tests.support.harness.keys import CONSISTENCY_TOKENS, FILE, RING, TOKENS, get_ring, mint_token

SIGNER = TokenSigner(Purpose.PAGE_TOKENS, get_ring)
VERSIONS = {"ordering.order.o-1": 3, "ordering.order.o-2": 1}


def change_keys(**changes: Any) -> KeyRing:
    """Return the ring of all tests with other fields in its first key."""
    file = json.loads(FILE)
    file["keys"][0] |= changes
    return KeyRing.parse(json.dumps(file).encode())


def cause_of(token: str, ring: KeyRing = RING) -> str:
    with pytest.raises(InvalidToken) as error:
        ConsistencyTokens(lambda: ring).read(token)
    return error.value.cause


@given(st.binary(), st.text())
def test_a_signed_payload_is_read_again(payload: bytes, context: str) -> None:
    assert SIGNER.verify(SIGNER.sign(payload, context), context) == payload


@given(st.binary(max_size=8), st.text(max_size=8), st.binary(max_size=8), st.text(max_size=8))
def test_a_signature_is_valid_for_its_context_alone(
    payload: bytes, context: str, other_payload: bytes, other_context: str
) -> None:
    token = SIGNER.sign(payload, context)
    data = urlsafe_b64decode(token)
    changed = urlsafe_b64encode(other_payload + data[len(payload) :]).decode()
    if other_payload != payload or other_context != context:
        with pytest.raises(InvalidToken):
            SIGNER.verify(changed, other_context)


def test_no_byte_moves_from_the_context_into_the_payload() -> None:
    data = urlsafe_b64decode(SIGNER.sign(b"c", "ab"))
    with pytest.raises(InvalidToken):
        SIGNER.verify(urlsafe_b64encode(b"b" + data).decode(), "a")


@given(st.data())
def test_no_changed_token_is_accepted(data: st.DataObject) -> None:
    token = mint_token("i", VERSIONS)
    place = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.characters())
    changed = data.draw(st.sampled_from([character, token[place] + character, ""]))
    tampered = token[:place] + changed + token[place + 1 :]
    if tampered != token:
        assert cause_of(tampered) in {"MALFORMED", "WRONG_SIGNATURE", "UNKNOWN_KEY"}


@given(st.text())
def test_no_text_is_a_token(text: str) -> None:
    with pytest.raises(RpcError) as error:
        TOKENS.read_consistency_token(text)
    assert error.value.reason == "TOKEN_INVALID"
    assert error.value.metadata == {"cause": "MALFORMED"}


def test_a_handmade_token_is_refused() -> None:
    streams = [StreamVersion(stream=f"ordering.order.{n}", version=2**62) for n in range(98)]
    payload = Token(incarnation="i", streams=streams).SerializeToString()
    assert cause_of(urlsafe_b64encode(payload).decode()) == "MALFORMED"
    stolen_signature = urlsafe_b64decode(mint_token("i", {}))[
        len(Token(incarnation="i").SerializeToString()) :
    ]
    assert cause_of(urlsafe_b64encode(payload + stolen_signature).decode()) == "WRONG_SIGNATURE"


def test_a_token_of_another_purpose_is_refused() -> None:
    payload = Token(incarnation="i").SerializeToString()
    assert cause_of(SIGNER.sign(payload)) == "UNKNOWN_KEY"


def test_a_verify_only_key_verifies_and_a_revoked_or_unknown_one_does_not() -> None:
    token = mint_token("i", VERSIONS)
    verify_only = change_keys(state="verify-only")
    assert ConsistencyTokens(lambda: verify_only).read(token).streams[0].version == 3
    assert cause_of(token, change_keys(state="revoked")) == "REVOKED_KEY"
    assert cause_of(token, change_keys(id="other")) == "UNKNOWN_KEY"
    assert cause_of(token, change_keys(secret="A" * 44)) == "WRONG_SIGNATURE"


def test_a_key_that_begins_later_verifies_already() -> None:
    later = change_keys(**{"from": "2999-01-01T00:00:00Z"})
    assert ConsistencyTokens(lambda: later).read(mint_token("i", VERSIONS)).incarnation == "i"


@pytest.mark.parametrize(
    "content",
    [Token(), Token(incarnation="i", streams=[StreamVersion()] * 1_001)],
    ids=["no incarnation", "too many streams"],
)
def test_signed_content_beyond_the_limits_is_refused(content: Token) -> None:
    signer = TokenSigner(Purpose.CONSISTENCY_TOKENS, get_ring)
    assert cause_of(signer.sign(content.SerializeToString())) == "MALFORMED"


def test_a_reader_that_verifies_nothing_still_reads_the_streams() -> None:
    """So a release without signatures can serve the tokens of the next one while both run."""
    content = Token.FromString(urlsafe_b64decode(CONSISTENCY_TOKENS.mint("i", VERSIONS)))
    assert {stream.stream: stream.version for stream in content.streams} == VERSIONS
    assert content.incarnation == "i"
