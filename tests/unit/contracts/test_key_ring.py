"""The key ring's file: what is a ring, and which key signs."""

import json
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from contracts.key_ring import ALGORITHMS, KeyRing, KeyState, Purpose
from tests.support.harness.keys import SECRET, SEED

PURPOSE = Purpose.PAGE_TOKENS


def entry(id_: str = "k", begin: int = 0, **changes: Any) -> dict[str, Any]:
    """Return a key that signs from this second of a minute on."""
    return {
        "id": id_,
        "purpose": PURPOSE,
        "algorithm": "BLAKE2b-128",
        "state": "active",
        "from": f"2026-01-01T00:00:{begin:02}Z",
        "secret": SECRET,
    } | changes


def ring_of(*entries: dict[str, Any]) -> KeyRing:
    return KeyRing.parse(json.dumps({"keys": entries}).encode())


START = ring_of(entry()).keys["k"].begins_at


def test_the_latest_active_key_that_has_begun_signs() -> None:
    ring = ring_of(entry("a", 10), entry("b", 30), entry("c", 20), entry("d", 25, state="verify-only"))
    signing = [ring.find_signing_key(PURPOSE, START + second).id for second in (10, 19, 20, 29, 30, 59)]
    assert signing == ["a", "a", "c", "c", "b", "b"]


def test_a_clock_that_was_set_back_does_not_stop_signing() -> None:
    assert ring_of(entry("a", 10), entry("b", 30)).find_signing_key(PURPOSE, START).id == "a"


def test_keys_of_other_purposes_do_not_sign() -> None:
    ring = ring_of(entry("a"), entry("b", 30, purpose="watch-tokens"))
    assert ring.find_signing_key(PURPOSE, START + 60).id == "a"


def test_keys_of_unknown_purposes_are_ignored() -> None:
    ring = ring_of(entry("a"), entry("b", purpose="of a later release", algorithm="unknown", secret="short"))
    assert list(ring.keys) == ["a"]


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ((), "no active key for page-tokens"),
        ((entry(state="verify-only"),), "no active key for page-tokens"),
        ((entry(state="revoked"),), "no active key for page-tokens"),
        ((entry(purpose="watch-tokens"),), "no active key for page-tokens"),
        ((entry(begin=59),), "no active key for page-tokens before 20"),
    ],
)
def test_a_ring_without_a_key_to_sign_with_is_refused(
    entries: tuple[dict[str, Any], ...], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        ring_of(*entries).check([PURPOSE], START + 30)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"state": "asleep"}, r"Invalid enum value 'asleep' - at `\$.keys\[0\].state`"),
        ({"algorithm": "MD5"}, "key k: unknown algorithm 'MD5' .known: BLAKE2b-128, HMAC-SHA256-128"),
        ({"secret": "c2hvcnQ="}, "key k: the secret must have 32 to 64 bytes, not 5"),
        ({"secret": "?"}, "key k: the secret"),
        ({"id": "a b"}, r"at `\$.keys\[0\].id`"),
        ({"id": "k" * 33}, r"at `\$.keys\[0\].id`"),
        ({"id": "k\n"}, r"at `\$.keys\[0\].id`"),
        ({"from": "yesterday"}, r"at `\$.keys\[0\].from`"),
        ({"from": "2026-01-01T00:00:00"}, r"at `\$.keys\[0\].from`"),
    ],
)
def test_a_key_with_a_wrong_field_is_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        ring_of(entry(**change))


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b'{"keys": {}}', b'{"keys": [1]}', b"\xff"])
def test_other_content_is_no_ring(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a key ring"):
        KeyRing.parse(content)


def test_two_keys_with_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match="two keys have the id k"):
        ring_of(entry(), entry(purpose="watch-tokens"))


def test_no_representation_of_a_key_shows_its_secret() -> None:
    assert "hash" not in repr(ring_of(entry()).keys["k"])


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_a_mac_depends_on_message_secret_purpose_id_and_algorithm(algorithm: str) -> None:
    def mac(message: bytes = b"message", **changes: Any) -> bytes:
        (key,) = ring_of(entry(**{"algorithm": algorithm} | changes)).keys.values()
        return key.compute_mac(message)

    others = [name for name in ALGORITHMS if name != algorithm]
    changed = [
        mac(b"another"),
        mac(secret=SECRET.swapcase()),
        mac(purpose="watch-tokens"),
        mac(id="l"),
        mac(algorithm=others[0]),
    ]
    assert mac() == mac(state=KeyState.REVOKED) and len(mac()) == 16
    assert len({mac(), *changed}) == len(changed) + 1


def seal_entry(**changes: Any) -> dict[str, Any]:
    return entry(purpose="seal", algorithm="Ed25519", secret=SEED, **changes)


def test_a_key_that_seals_signs_for_holders_of_its_public_key() -> None:
    key = ring_of(seal_entry()).find_signing_key(Purpose.SEAL, START)
    public_key = Ed25519PublicKey.from_public_bytes(key.get_public_key())
    public_key.verify(key.sign(b"message"), b"message")
    with pytest.raises(InvalidSignature):
        public_key.verify(key.sign(b"message"), b"another")
    assert "seed" not in repr(key)


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (entry(purpose="seal"), "unknown algorithm 'BLAKE2b-128' .known: Ed25519"),
        (entry(algorithm="Ed25519", secret=SEED), "unknown algorithm 'Ed25519' .known: BLAKE2b-128"),
        (seal_entry() | {"secret": SECRET}, "the secret must have 32 bytes, not 39"),
    ],
)
def test_a_key_has_an_algorithm_for_its_purpose(key: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        ring_of(key)
