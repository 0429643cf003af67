"""Reads those keys of a JSON Web Key Set that may verify access tokens, and says why others are left out."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK

from runtime.process.logs.repeated_errors import describe_error
from runtime.process.terminal import escape

ALGORITHMS = {"RSA": "RS256", "OKP": "EdDSA"}
"""The only algorithm accepted for each key type. The `alg` of a token is not trusted."""
_NAMES = {"RSA": {"RS256"}, "OKP": {"EdDSA", "Ed25519", "Ed448"}}
"""The algorithms that a key of a type may name (`alg`); RFC 9864 names the curve."""
MIN_RSA_BITS = 2048
_MAX_DESCRIBED = 10
"""Keys that one line describes."""
_MAX_ID_LENGTH = 64


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key with its id and its algorithm."""

    id: str
    algorithm: str
    key: Any


@dataclass(frozen=True, slots=True)
class ParsedKeys:
    """The usable keys of a set by their ids, and the descriptions of the others."""

    usable: Mapping[str, VerificationKey]
    left_out: list[str]

    def describe_left_out(self) -> str:
        shown = "; ".join(self.left_out[:_MAX_DESCRIBED])
        more = len(self.left_out) - _MAX_DESCRIBED
        return f"{shown}; and {more} more" if more > 0 else shown


class _Unusable(Exception):
    """A key is not used; the text says why."""


def parse_keys(content: bytes) -> ParsedKeys:
    """Return the keys of a JSON Web Key Set.

    Raises:
        Exception: it is none, or has several keys with one id. JSON and PyJWT raise errors of many types.
    """
    entries = _extract_entries(json.loads(content))
    ids = Counter(entry["kid"] for entry in entries if isinstance(entry.get("kid"), str))
    if repeated := [key_id for key_id, count in ids.items() if count > 1]:
        raise ValueError(f"several keys have the id {_shorten(repeated[0])}")
    usable: dict[str, VerificationKey] = {}
    left_out = []
    for entry in entries:
        try:
            key = _parse_key(entry)
        except _Unusable as error:
            left_out.append(f"{_shorten(entry.get('kid'))}: {error}")
        else:
            usable[key.id] = key
    return ParsedKeys(usable, left_out)


def _extract_entries(document: object) -> list[dict[str, Any]]:
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("not a JSON Web Key Set")
    return entries


def _parse_key(entry: dict[str, Any]) -> VerificationKey:
    key_id, kind = entry.get("kid"), entry.get("kty")
    if not isinstance(key_id, str) or not key_id:
        raise _Unusable("has no id (kid)")
    if not isinstance(kind, str) or kind not in ALGORITHMS:
        raise _Unusable("its type (kty) is neither RSA nor OKP")
    if entry.get("use", "sig") != "sig":
        raise _Unusable("is not for signatures (use)")
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise _Unusable("may not verify (key_ops)")
    algorithm = entry.get("alg", ALGORITHMS[kind])
    if not isinstance(algorithm, str) or algorithm not in _NAMES[kind]:
        raise _Unusable(f"its algorithm (alg) is not that of {kind} keys, {ALGORITHMS[kind]}")
    if "d" in entry:
        raise _Unusable("is a private key, which is known to others now")
    try:
        key = PyJWK(entry, ALGORITHMS[kind]).key
    except Exception as error:  # PyJWT raises anything for a malformed key
        raise _Unusable(f"cannot be read: {describe_error(error)[:100]}") from error
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise _Unusable(f"has {key.key_size} bits, fewer than {MIN_RSA_BITS}")
    return VerificationKey(key_id, ALGORITHMS[kind], key)


def _shorten(key_id: object) -> str:
    """Return an id as a printable text of limited length."""
    return escape(key_id[:_MAX_ID_LENGTH]) if isinstance(key_id, str) and key_id else "a key without id"
