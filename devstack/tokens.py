"""The local stack's issuer of access tokens: a key pair, its public half as a JWKS, and signed JWTs.

A deployment names the JWKS of its identity provider in DIPTYCH_JWKS instead.
"""

import asyncio
import json
from collections.abc import Callable, Iterable
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

from operations.provision.secret_files import write_file
from process_manager.saga import Saga
from process_manager.scopes import required_scopes
from runtime.process.contexts import choose_contexts, load_parts
from runtime.process.settings import Settings
from runtime.process.start_error import StartError

OPERATOR_SCOPES = ("operations.read", "operations.act")
LIFETIME = timedelta(hours=12)
"""Of the tokens in files. The local stack renews them; temporary stacks run for less."""
RENEWAL_CHECK = 30.0
"""Seconds between two looks at the clock."""


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


def mint(
    settings: Settings,
    scopes: Iterable[str],
    subject: str,
    lifetime: timedelta,
    on_behalf_of: str | None = None,
) -> str:
    """Return an access token for servers with these settings.

    Raises:
        StartError: there is no private key beside the JWKS of the settings, or servers would refuse the token
            for its lifetime.
    """
    if settings.max_token_lifetime is not None and lifetime > settings.max_token_lifetime:
        raise StartError(
            f"the lifetime {lifetime} is longer than servers accept: DIPTYCH_MAX_TOKEN_LIFETIME is"
            f" {settings.max_token_lifetime}"
        )
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
        **({} if on_behalf_of is None else {"on_behalf_of": on_behalf_of}),
    }
    return jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": _compute_key_id(key)})


def write_process_manager_token(settings: Settings) -> None:
    """Write a token with the scopes of all sagas into the file that the process manager reads."""
    sagas = load_parts(choose_contexts(settings), "sagas", "SAGAS", Saga)
    token = mint(settings, required_scopes(sagas), "process-manager", file_lifetime(settings))
    write_file(Path(settings.process_manager_token), token)


async def keep_renewed(write: Callable[[], None], lifetime: timedelta, report: Callable[[str], None]) -> None:
    """Write tokens again whenever a quarter of their lifetime has passed, until cancelled.

    Args:
        write: writes all tokens.
        lifetime: of the tokens, which were written just now. It passes while the machine sleeps, too.
        report: called with each failure, after which the next attempt follows.
    """
    written_at = datetime.now(UTC)
    while True:
        await asyncio.sleep(RENEWAL_CHECK)
        if datetime.now(UTC) - written_at > lifetime / 4:
            try:
                write()
                written_at = datetime.now(UTC)
            except (OSError, StartError) as error:
                report(f"the tokens cannot be renewed: {error}")


def write_operations_token(settings: Settings) -> None:
    """Write a token with an operator's scopes into the file that `diptych` reads."""
    token = mint(settings, OPERATOR_SCOPES, "operator", file_lifetime(settings))
    write_file(Path(settings.operations_token), token)


def file_lifetime(settings: Settings) -> timedelta:
    """Return the lifetime of tokens in files."""
    return min(LIFETIME, settings.max_token_lifetime or LIFETIME)


def _private_key_path(jwks: Path) -> Path:
    return jwks.with_name("private-key.pem")


def _compute_key_id(key: Ed25519PrivateKey) -> str:
    return sha256(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]
