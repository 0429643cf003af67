"""The local stack's issuer of access tokens: a key pair, its public half as a JWKS, and signed JWTs.

A deployment names the JWKS of its identity provider in DIPTYCH_JWKS instead.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from jwt.algorithms import OKPAlgorithm

from process_manager.saga import Saga
from process_manager.scopes import required_scopes
from runtime.process.contexts import choose_contexts, load_parts
from runtime.process.settings import Settings
from runtime.process.start_error import StartError

OPERATOR_SCOPES = ("operations.read", "operations.act")


def make_keys(jwks: Path) -> None:
    """Create a key pair unless it exists: the public key in this file, the private one beside it."""
    if jwks.exists() and _private_key_path(jwks).exists():
        return
    jwks.parent.mkdir(parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    _private_key_path(jwks).touch(mode=0o600)
    _private_key_path(jwks).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    jwks.write_text(
        json.dumps({"keys": [{**public, "kid": _compute_key_id(key), "use": "sig", "alg": "EdDSA"}]})
    )


def mint(settings: Settings, scopes: Iterable[str], subject: str, lifetime: timedelta) -> str:
    """Return an access token for servers with these settings.

    Raises:
        StartError: there is no private key beside the JWKS of the settings.
    """
    path = _private_key_path(Path(settings.jwks))
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise StartError(f"there is no signing key in {path}; `make up` creates one") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StartError(f"{path} is not an Ed25519 key")
    now = datetime.now(UTC)
    claims = {
        "iss": settings.token_issuer,
        "aud": settings.token_audience,
        "sub": subject,
        "scope": " ".join(scopes),
        "iat": now,
        "exp": now + lifetime,
    }
    return jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": _compute_key_id(key)})


def write_process_manager_token(settings: Settings) -> None:
    """Write a token with the scopes of all sagas into the file that the process manager reads."""
    sagas = load_parts(choose_contexts(settings), "sagas", "SAGAS", Saga)
    token = mint(settings, required_scopes(sagas), "process-manager", timedelta(days=365))
    _write_token(settings.process_manager_token, token)


def write_operations_token(settings: Settings) -> None:
    """Write a token with an operator's scopes into the file that `diptych` reads."""
    token = mint(settings, OPERATOR_SCOPES, "operator", timedelta(days=365))
    _write_token(settings.operations_token, token)


def _write_token(file: str, token: str) -> None:
    path = Path(file)
    path.touch(mode=0o600)
    path.write_text(token)


def _private_key_path(jwks: Path) -> Path:
    return jwks.with_name("private-key.pem")


def _compute_key_id(key: Ed25519PrivateKey) -> str:
    return sha256(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]
