"""A token issuer for tests, whose keys can be rotated."""

import json
from collections.abc import Mapping
from pathlib import Path
from time import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

ISSUER, AUDIENCE = "diptych-local", "diptych"
METADATA = tuple[tuple[str, str], ...]
Key = Ed25519PrivateKey | RSAPrivateKey


def ed25519() -> Key:
    return Ed25519PrivateKey.generate()


def rsa() -> Key:
    return generate_private_key(65537, 2048)


class Issuer:
    """Publishes public keys in a JWKS file, and signs tokens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key_id, self.key = "key-1", ed25519()
        self.publish({self.key_id: self.key})

    def publish(self, keys: dict[str, Key]) -> None:
        """Replace the keys in the file atomically."""
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"keys": [_to_jwk(key_id, key) for key_id, key in keys.items()]}))
        new.replace(self.path)

    def token(
        self,
        *,
        key: Key | None = None,
        key_id: str | None = None,
        algorithm: str | None = None,
        header: Mapping[str, Any] | None = None,
        without: tuple[str, ...] = (),
        **claims: Any,
    ) -> str:
        """Return a signed token.

        Args:
            key: the key to sign with; by default the issuer's.
            key_id: the `kid` in the token's header; by default that of the issuer's key.
            algorithm: by default the one that fits the key.
            header: further or changed parts of the header; None removes a part.
            without: standard claims to leave out.
            claims: additional or changed claims.
        """
        standard = {
            "sub": "alice",
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": time(),
            "exp": time() + 60,
            "scope": "ledger.read ledger.write",
        }
        payload = {name: value for name, value in (standard | claims).items() if name not in without}
        key = key or self.key
        algorithm = algorithm or ("RS256" if isinstance(key, RSAPrivateKey) else "EdDSA")
        return jwt.encode(payload, key, algorithm, {"kid": key_id or self.key_id, **(header or {})})

    def bearer(self, **options: Any) -> METADATA:
        return bearer(self.token(**options))


def bearer(token: str) -> METADATA:
    return (("authorization", f"Bearer {token}"),)


def _to_jwk(key_id: str, key: Key) -> dict[str, Any]:
    to_jwk: Any = RSAAlgorithm.to_jwk if isinstance(key, RSAPrivateKey) else OKPAlgorithm.to_jwk
    return {**json.loads(to_jwk(key.public_key())), "kid": key_id}
