"""Which keys of a JSON Web Key Set verify tokens, and which are left out."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

from runtime.grpc.verification_keys import parse_keys

KEY: dict[str, Any] = {
    **OKPAlgorithm.to_jwk(Ed25519PrivateKey.generate().public_key(), as_dict=True),
    "kid": "k",
}


def rsa_key(bits: int) -> dict[str, Any]:
    key = generate_private_key(65537, bits)
    return {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": f"rsa-{bits}"}


RSA = rsa_key(2048)


def parse(*keys: Any) -> tuple[set[str], str]:
    """Return the ids of the usable keys, and the description of the others."""
    parsed = parse_keys(json.dumps({"keys": keys}).encode())
    return set(parsed.usable), parsed.describe_left_out()


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"use": "sig", "alg": "EdDSA"},
        {"alg": "Ed25519"},
        {"key_ops": ["verify"]},
        {"key_ops": ["sign", "verify"]},
    ],
)
def test_a_key_for_signatures_is_used(parts: dict[str, Any]) -> None:
    assert parse({**KEY, **parts}) == ({"k"}, "")


def test_an_rsa_key_of_2048_bits_is_used_and_a_smaller_one_is_not() -> None:
    assert parse({**RSA, "alg": "RS256"}, rsa_key(1024)) == (
        {"rsa-2048"},
        "rsa-1024: has 1024 bits, fewer than 2048",
    )


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"use": "enc"}, "use"),
        ({"use": ["sig"]}, "use"),
        ({"use": None}, "use"),
        ({"key_ops": ["sign"]}, "key_ops"),
        ({"key_ops": []}, "key_ops"),
        ({"key_ops": "verify"}, "key_ops"),
        ({"alg": "RS256"}, "alg"),
        ({"alg": "HS256"}, "alg"),
        ({"alg": "none"}, "alg"),
        ({"alg": ["EdDSA"]}, "alg"),
        ({"kty": "oct"}, "kty"),
        ({"kty": "EC"}, "kty"),
        ({"kty": ["OKP"]}, "kty"),
        ({"kty": "RSA", "alg": "RS256"}, "cannot be read"),
        ({"crv": "X25519"}, "cannot be read"),
        ({"x": 1}, "cannot be read"),
        ({"d": "AA"}, "private"),
    ],
)
def test_another_key_is_left_out(parts: dict[str, Any], problem: str) -> None:
    usable, left_out = parse({**KEY, **parts}, RSA)
    assert usable == {"rsa-2048"}
    assert left_out.startswith("k: ")
    assert problem in left_out


@pytest.mark.parametrize("algorithm", ["RS512", "PS256", "EdDSA", "RSA-OAEP"])
def test_an_rsa_key_for_another_algorithm_is_left_out(algorithm: str) -> None:
    assert parse({**RSA, "alg": algorithm})[0] == set()


@pytest.mark.parametrize("key_id", [None, "", 1, ["k"]])
def test_a_key_without_an_id_is_left_out(key_id: Any) -> None:
    assert parse({**KEY, "kid": key_id}) == (set(), "a key without id: has no id (kid)")


@pytest.mark.parametrize("other", [{**RSA, "kid": "k"}, {"kid": "k", "kty": "oct"}, KEY])
def test_a_set_with_two_keys_of_one_id_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="several keys have the id k"):
        parse(KEY, other)


def test_many_keys_that_are_left_out_are_described_in_short() -> None:
    _, left_out = parse(*({"kid": f"\x1b{number}" * 100} for number in range(1_000)))
    assert left_out.endswith("; and 990 more")
    assert left_out.isprintable()
    assert len(left_out) < 5_000


def test_an_equal_key_stays_the_same() -> None:
    first, second = (parse_keys(json.dumps({"keys": [KEY], "n": n}).encode()).usable["k"] for n in (1, 2))
    assert first == second
    replaced = {**OKPAlgorithm.to_jwk(Ed25519PrivateKey.generate().public_key(), as_dict=True), "kid": "k"}
    assert parse_keys(json.dumps({"keys": [replaced]}).encode()).usable["k"] != first
