"""Tokens for the local stack: a key pair of its own, and JWTs signed with it. Production has an issuer."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from runtime.settings import Settings

KEY_ID = "local"


class Issuer:
    """Signs tokens with the key in a folder.

    Args:
        folder: holds `signing-key.pem` and `jwks.json`; both are made where they are missing.
    """

    def __init__(self, folder: Path) -> None:
        self.jwks = folder / "jwks.json"
        self._key_file = folder / "signing-key.pem"
        if not self._key_file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            self._make()
        key = serialization.load_pem_private_key(self._key_file.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise TypeError(f"{self._key_file} holds no Ed25519 key")
        self._key = key

    def token(self, subject: str, scopes: Iterable[str], lifetime: timedelta = timedelta(hours=1)) -> str:
        """Return a JWT that says its bearer is `subject` and has these scopes."""
        settings, now = Settings(), datetime.now(UTC)
        claims = {
            "iss": settings.token_issuer,
            "aud": settings.token_audience,
            "sub": subject,
            "scope": " ".join(scopes),
            "iat": now,
            "exp": now + lifetime,
        }
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": KEY_ID})

    def _make(self) -> None:
        key = Ed25519PrivateKey.generate()
        public = json.loads(OKPAlgorithm.to_jwk(key.public_key()))
        self.jwks.write_text(json.dumps({"keys": [{**public, "kid": KEY_ID, "alg": "EdDSA", "use": "sig"}]}))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._key_file.touch(mode=0o600)
        self._key_file.write_bytes(private)
