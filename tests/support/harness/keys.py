"""A key ring for tests, and the tokens of servers that use it."""

import atexit
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from contracts import streams
from contracts.consistency_tokens import ConsistencyTokens
from contracts.envelope import RecordedEvent, to_headers
from contracts.feed_signatures import SIGNATURE, sign
from contracts.key_ring import MAC_SIZE, KeyRing, Purpose
from contracts.signed_tokens import TokenSigner
from runtime.grpc.request_tokens import RequestTokens
from runtime.jetstream import OutgoingMessage

SECRET = "dGhlIGtleSByaW5nIG9mIGFsbCB0ZXN0cyBpcyBubyBzZWNyZXQu"
SEED = "c2VhbHMgb2YgYWxsIHRlc3RzIGFyZSBub3Qgc2VjcmU="
ALGORITHMS = {b"seal": b"Ed25519", b"personal": b"AES-256-GCM"}
FILE = b"""{"keys": [%s]}""" % b", ".join(
    b"""{"id": "%s", "purpose": "%s", "algorithm": "%s", "state": "active",
    "from": "2026-01-01T00:00:00Z", "secret": "%s"}"""
    % (id_, purpose, ALGORITHMS.get(purpose, b"BLAKE2b-128"), secret.encode())
    for id_, purpose, secret in (
        (b"c", b"consistency-tokens", SECRET),
        (b"p", b"page-tokens", SECRET),
        (b"q", b"quote", SECRET),
        (b"w", b"watch-tokens", SECRET),
        (b"f", b"confirmation", SECRET),
        (b"u", b"unique", SECRET),
        (b"h", b"request", SECRET),
        (b"r", b"feed", SECRET),
        (b"s", b"seal", SEED),
        (b"d", b"personal", SEED),
    )
)
RING = KeyRing.parse(FILE)


FEED_KEY = RING.keys["r"]


def get_ring() -> KeyRing:
    return RING


def sign_events(epoch: str, events: Iterable[RecordedEvent], after: int) -> Iterator[OutgoingMessage]:
    """Yield the messages of events, as a relay signs them, with the subjects of readers."""
    for sequence, event in enumerate(events, after + 1):
        subject, headers = streams.subject(event.stream), to_headers(event)
        headers[SIGNATURE] = sign(FEED_KEY, epoch, sequence, subject, headers, event.data)
        yield OutgoingMessage(subject, event.data, headers)


TOKENS = RequestTokens(get_ring)
FEED_REPLIES = TokenSigner(Purpose.FEED, get_ring)
CONSISTENCY_TOKENS = ConsistencyTokens(get_ring)
mint_token = CONSISTENCY_TOKENS.mint


def write_ring(path: Path) -> Path:
    """Write the key ring of this module into a file that its owner alone can read."""
    path.touch(mode=0o600)
    path.write_bytes(FILE)
    return path


@cache
def ring_file() -> Path:
    """Return a file with the key ring of this module, for the processes that this test process starts."""
    folder = Path(mkdtemp(prefix="diptych-keys-"))
    atexit.register(rmtree, folder)
    return write_ring(folder / "keys.json")


def key_id_of(token: str) -> str:
    """Return the id of the key that signed a token."""
    data = urlsafe_b64decode(token)
    return data[-1 - MAC_SIZE - data[-1] : -1 - MAC_SIZE].decode()
