"""The key ring: the secret keys with which the processes sign and seal, each for one purpose.

Most make message authentication codes, which only the holders of a key can verify. Those of SIGNING_PURPOSES
make signatures that everybody can verify with the public key, and those of SEALING_PURPOSES encrypt.

It is a JSON file, shared by all processes that sign or verify:

    {"keys": [{"id": "1f6a0c52", "purpose": "page-tokens", "algorithm": "BLAKE2b-128", "state": "active",
               "from": "2026-01-31T12:00:00Z", "secret": "<URL-safe Base64 of at least 32 bytes>"}]}

How it works. A signature names its key. Processes read a changed file at different times, so a key is added
with a later `from`: every process verifies with it at once, and signs with it from then on. Of several active
keys the one with the latest `from` that has passed signs. A `verify-only` key no longer signs, and signatures
of a `revoked` one are invalid. Keys of unknown purposes are ignored: they belong to other releases.
"""

import binascii
import hmac
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Annotated, Any

import msgspec

MAC_SIZE = 16
"""Bytes of a message authentication code (MAC)."""
MIN_SECRET_SIZE, MAX_SECRET_SIZE = 32, 64
"""Bytes of a secret."""
SEED_SIZE = 32
"""Bytes of the secret of a key that signs."""
MAX_ID_LENGTH = 32


class Purpose(StrEnum):
    """What a key signs."""

    CONSISTENCY_TOKENS = "consistency-tokens"
    PAGE_TOKENS = "page-tokens"
    WATCH_TOKENS = "watch-tokens"
    QUOTE = "quote"
    CONFIRMATION = "confirmation"
    SEAL = "seal"
    """Signs checkpoints of the audit (`contracts.audit`), asymmetrically: others verify them."""
    FEED = "feed"
    """Signs the messages in the stream, and the relay's replies."""
    UNIQUE = "unique"
    """Hides values in ids (`contracts.hidden_ids`). Its old keys stay in the ring."""
    REQUEST = "request"
    """Hides requests in the hashes of their records. Its old keys stay for as long as the records."""
    PERSONAL = "personal"
    """Encrypts the keys of persons (`contracts.subject_keys`). Its old keys stay in the ring."""


class KeyState(StrEnum):
    """What a key may be used for: to sign and verify, to seal and open."""

    ACTIVE = "active"
    VERIFY_ONLY = "verify-only"
    REVOKED = "revoked"


ALGORITHMS: dict[str, Callable[[bytes], Any]] = {
    "BLAKE2b-128": lambda secret: blake2b(key=secret, digest_size=MAC_SIZE),
    "HMAC-SHA256-128": lambda secret: hmac.new(secret, digestmod="sha256"),
}
"""Returns a hash object with the secret, by the name of the algorithm. Digests are cut to MAC_SIZE bytes."""
SIGNATURE = "Ed25519"
"""The algorithm of SIGNING_PURPOSES; its secret is the 32 bytes of RFC 8032."""
SEALING = "AES-256-GCM"
"""The algorithm of SEALING_PURPOSES; its secret has 32 bytes."""
SEALING_PURPOSES = frozenset({Purpose.PERSONAL})
"""Purposes whose keys encrypt."""
OPTIONAL_PURPOSES = frozenset({Purpose.REQUEST, Purpose.PERSONAL})
"""Purposes that a ring may lack: what they protect is recorded as before they existed."""
SIGNING_PURPOSES = frozenset({Purpose.SEAL})
"""Purposes whose signatures others verify, with a public key."""


def list_algorithms(purpose: str) -> list[str]:
    """Return the algorithms that a key of this purpose may have, the default first."""
    if purpose in SEALING_PURPOSES:
        return [SEALING]
    return [SIGNATURE] if purpose in SIGNING_PURPOSES else list(ALGORITHMS)


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a ring."""

    id: str
    purpose: str
    state: KeyState
    begins_at: float
    """The time from which it signs, in seconds since 1970."""
    hash: Any = field(repr=False)
    """A hash object with the secret, the purpose and the id; `compute_mac` copies it. None if it signs or
    seals."""
    seed: bytes = field(default=b"", repr=False)
    """The secret of a key that signs or seals."""

    def compute_mac(self, message: bytes) -> bytes:
        copy = self.hash.copy()
        copy.update(message)
        return bytes(copy.digest()[:MAC_SIZE])

    def sign(self, message: bytes) -> bytes:
        """Return the signature by a key of SIGNING_PURPOSES."""
        return bytes(self._load().sign(message))

    def load_cipher(self) -> Any:
        """Return the cipher (`AESGCM`) of a key of SEALING_PURPOSES."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self.seed)

    def get_public_key(self) -> bytes:
        """Return the 32 bytes with which others verify signatures of a key of SIGNING_PURPOSES."""
        return bytes(self._load().public_key().public_bytes_raw())

    def _load(self) -> Any:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self.seed)


class _Entry(msgspec.Struct):
    """A key in the file."""

    id: Annotated[str, msgspec.Meta(pattern=rf"\A[A-Za-z0-9_-]{{1,{MAX_ID_LENGTH}}}\Z")]
    purpose: str
    algorithm: str
    state: KeyState
    from_: Annotated[datetime, msgspec.Meta(tz=True)] = msgspec.field(name="from")
    secret: str


class _File(msgspec.Struct):
    keys: list[_Entry]


class KeyRing:
    """The keys by id, and those that sign.

    Args:
        keys: with distinct ids.
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        self.keys = {key.id: key for key in keys}
        self._active: dict[str, list[Key]] = {}
        """The active keys by purpose, the latest `from` first."""
        for key in sorted(self.keys.values(), key=lambda key: key.begins_at, reverse=True):
            if key.state == KeyState.ACTIVE:
                self._active.setdefault(key.purpose, []).append(key)

    @classmethod
    def parse(cls, content: bytes) -> "KeyRing":
        """Return the key ring of a file's content.

        Raises:
            ValueError: the content is not a key ring.
        """
        try:
            entries = msgspec.json.decode(content, type=_File).keys
        except msgspec.MsgspecError as error:
            raise ValueError(f"not a key ring: {error}") from error
        ids = [entry.id for entry in entries]
        if repeated := [id_ for id_ in ids if ids.count(id_) > 1]:
            raise ValueError(f"two keys have the id {repeated[0]}")
        return cls(_parse_key(entry) for entry in entries if entry.purpose in set(Purpose))

    def check(self, purposes: Iterable[Purpose], now: float) -> None:
        """Check that there is a key to sign with for each of the purposes.

        Raises:
            ValueError: there is none.
        """
        for purpose in purposes:
            active = self._active.get(purpose, [])
            if not active:
                raise ValueError(f"no active key for {purpose}")
            if active[-1].begins_at > now:
                begin = datetime.fromtimestamp(active[-1].begins_at).astimezone().isoformat()
                raise ValueError(f"no active key for {purpose} before {begin}")

    def find_begun_key(self, purpose: Purpose, now: float) -> Key | None:
        """Return the key that signs; None if there is none yet."""
        begun = (key for key in self._active.get(purpose, ()) if key.begins_at <= now)
        return next(begun, None)

    def find_signing_key(self, purpose: Purpose, now: float) -> Key:
        """Return the key that signs.

        Raises:
            LookupError: there is no active key for the purpose; `check` raises an error then.
        """
        if key := self.find_begun_key(purpose, now):
            return key
        if active := self._active.get(purpose):
            return active[-1]  # the clock was set back since the check
        raise LookupError(f"no active key for {purpose}")


def _parse_key(entry: _Entry) -> Key:
    if entry.algorithm not in (algorithms := list_algorithms(entry.purpose)):
        known = ", ".join(algorithms)
        raise ValueError(f"key {entry.id}: unknown algorithm {entry.algorithm!r} (known: {known})")
    try:
        secret = urlsafe_b64decode(entry.secret)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"key {entry.id}: the secret is not URL-safe Base64") from error
    if not MIN_SECRET_SIZE <= len(secret) <= MAX_SECRET_SIZE:
        size = f"{MIN_SECRET_SIZE} to {MAX_SECRET_SIZE} bytes"
        raise ValueError(f"key {entry.id}: the secret must have {size}, not {len(secret)}")
    if entry.algorithm in (SIGNATURE, SEALING):
        if len(secret) != SEED_SIZE:
            raise ValueError(f"key {entry.id}: the secret must have {SEED_SIZE} bytes, not {len(secret)}")
        return Key(entry.id, entry.purpose, entry.state, entry.from_.timestamp(), None, secret)
    keyed = ALGORITHMS[entry.algorithm](secret)
    keyed.update(f"{entry.purpose}\0{entry.id}\0".encode())
    return Key(entry.id, entry.purpose, entry.state, entry.from_.timestamp(), keyed)
