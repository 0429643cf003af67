"""Signatures of messages: what they cover, and with which keys they are valid."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from contracts.feed_signatures import SIGNATURE, find_key, is_valid, name_key, sign
from contracts.key_ring import Key, KeyRing
from tests.support.harness.keys import FEED_KEY, FILE, RING

HEADERS = {
    "ce-id": "a.b.c@1",
    "ce-type": "a.v1.Happened",
    "diptych-version": "1",
    "diptych-actor": "alice",
    "traceparent": "00-1-1-01",
}


@dataclass(frozen=True)
class Signed:
    """A message with its place."""

    epoch: str = "epoch"
    sequence: int = 12
    subject: str = "diptych.events.1.a.b.c"
    headers: Mapping[str, str] = field(default_factory=dict)
    data: bytes = b"data"

    def is_valid(self, key: Key = FEED_KEY) -> bool:
        return is_valid(key, self.epoch, self.sequence, self.subject, self.headers, self.data)


def make(headers: Mapping[str, str] = HEADERS) -> Signed:
    message = Signed(headers=headers)
    signature = sign(FEED_KEY, message.epoch, message.sequence, message.subject, headers, message.data)
    return replace(message, headers={**headers, SIGNATURE: signature})


def test_a_message_is_valid_at_its_place_also_with_headers_of_jetstream() -> None:
    message = make()
    assert name_key(message.headers) == FEED_KEY.id
    assert message.is_valid()
    assert replace(message, headers={"Nats-Sequence": "12", **message.headers}).is_valid()


@pytest.mark.parametrize(
    "change",
    [{"epoch": "other"}, {"sequence": 13}, {"subject": "diptych.events.1.a.b.d"}, {"data": b"other"}],
    ids=["epoch", "sequence", "subject", "data"],
)
def test_a_message_is_not_valid_elsewhere(change: Mapping[str, object]) -> None:
    assert not replace(make(), **change).is_valid()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"diptych-actor": "mallory"},
        {"diptych-version": "2"},
        {"ce-type": "a.v1.Paid"},
        {"traceparent": "00-2-2-01"},
        {"diptych-on-behalf-of": "bob"},
        {SIGNATURE: f"{FEED_KEY.id}.{'0' * 32}"},
        {SIGNATURE: "not a signature \u20ac"},
    ],
    ids=str,
)
def test_changed_and_added_headers_make_a_message_invalid(change: Mapping[str, str]) -> None:
    message = make()
    assert not replace(message, headers={**message.headers, **change}).is_valid()


def test_values_that_change_their_names_make_a_message_invalid() -> None:
    message = make()
    names = {"diptych-actor": "diptych-on-behalf-of"}
    renamed = {names.get(name, name): value for name, value in message.headers.items()}
    assert not replace(message, headers=renamed).is_valid()


def test_an_unsigned_message_names_no_key() -> None:
    message = Signed(headers=HEADERS)
    assert name_key(message.headers) == ""
    assert not message.is_valid()


def test_keys_of_other_purposes_and_revoked_keys_verify_nothing() -> None:
    assert find_key(RING, FEED_KEY.id) is FEED_KEY
    assert find_key(RING, "p") is None
    assert find_key(RING, "missing") is None
    place = FILE.index(b'"purpose": "feed"')
    for state, found in ((b"verify-only", True), (b"revoked", False)):
        ring = KeyRing.parse(FILE[:place] + FILE[place:].replace(b"active", state, 1))
        assert (find_key(ring, FEED_KEY.id) is not None) == found
