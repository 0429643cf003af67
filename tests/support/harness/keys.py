"""A key ring for tests, and the tokens of servers that use it."""

from pathlib import Path

from contracts.consistency_tokens import ConsistencyTokens
from contracts.key_ring import KeyRing
from runtime.grpc.request_tokens import RequestTokens

SECRET = "dGhlIGtleSByaW5nIG9mIGFsbCB0ZXN0cyBpcyBubyBzZWNyZXQu"
FILE = b"""{"keys": [%s]}""" % b", ".join(
    b"""{"id": "%s", "purpose": "%s", "algorithm": "BLAKE2b-128", "state": "active",
    "from": "2026-01-01T00:00:00Z", "secret": "%s"}"""
    % (id_, purpose, SECRET.encode())
    for id_, purpose in ((b"c", b"consistency-tokens"), (b"p", b"page-tokens"), (b"w", b"watch-tokens"))
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


def read_consistency_tokens(path: str) -> ConsistencyTokens:
    """Return the tokens of a stack, whose key ring is in this file."""
    ring = KeyRing.parse(Path(path).read_bytes())
    return ConsistencyTokens(lambda: ring)
