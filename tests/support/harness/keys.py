"""A key ring for tests, and the tokens of servers that use it."""

from base64 import urlsafe_b64decode
from pathlib import Path

from contracts.consistency_tokens import ConsistencyTokens
from contracts.key_ring import MAC_SIZE, KeyRing
from runtime.grpc.request_tokens import RequestTokens

SECRET = "dGhlIGtleSByaW5nIG9mIGFsbCB0ZXN0cyBpcyBubyBzZWNyZXQu"
SEED = "c2VhbHMgb2YgYWxsIHRlc3RzIGFyZSBub3Qgc2VjcmU="
FILE = b"""{"keys": [%s]}""" % b", ".join(
    b"""{"id": "%s", "purpose": "%s", "algorithm": "%s", "state": "active",
    "from": "2026-01-01T00:00:00Z", "secret": "%s"}"""
    % (id_, purpose, b"Ed25519" if purpose == b"seal" else b"BLAKE2b-128", secret.encode())
    for id_, purpose, secret in (
        (b"c", b"consistency-tokens", SECRET),
        (b"p", b"page-tokens", SECRET),
        (b"q", b"quote", SECRET),
        (b"w", b"watch-tokens", SECRET),
        (b"f", b"confirmation", SECRET),
        (b"u", b"unique", SECRET),
        (b"s", b"seal", SEED),
    )
)
RING = KeyRing.parse(FILE)


def get_ring() -> KeyRing:
    return RING


TOKENS = RequestTokens(get_ring)
CONSISTENCY_TOKENS = ConsistencyTokens(get_ring)
mint_token = CONSISTENCY_TOKENS.mint


def write_ring(path: Path) -> Path:
    """Write the key ring of this module into a file that its owner alone can read."""
    path.touch(mode=0o600)
    path.write_bytes(FILE)
    return path


def key_id_of(token: str) -> str:
    """Return the id of the key that signed a token."""
    data = urlsafe_b64decode(token)
    return data[-1 - MAC_SIZE - data[-1] : -1 - MAC_SIZE].decode()
