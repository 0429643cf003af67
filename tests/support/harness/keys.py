"""A key ring for tests, and the tokens of servers that use it."""

from base64 import urlsafe_b64decode
from pathlib import Path

from contracts.consistency_tokens import ConsistencyTokens
from contracts.key_ring import MAC_SIZE, KeyRing
from runtime.grpc.request_tokens import RequestTokens

SECRET = "dGhlIGtleSByaW5nIG9mIGFsbCB0ZXN0cyBpcyBubyBzZWNyZXQu"
FILE = b"""{"keys": [%s]}""" % b", ".join(
    b"""{"id": "%s", "purpose": "%s", "algorithm": "BLAKE2b-128", "state": "active",
    "from": "2026-01-01T00:00:00Z", "secret": "%s"}"""
    % (id_, purpose, SECRET.encode())
    for id_, purpose in (
        (b"c", b"consistency-tokens"),
        (b"p", b"page-tokens"),
        (b"q", b"quote"),
        (b"w", b"watch-tokens"),
        (b"f", b"confirmation"),
        (b"u", b"unique"),
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
