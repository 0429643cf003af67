"""Hashes that tell a retry from another request under the same id, without revealing the request.

A plain digest of a short request reveals it to whoever can guess it. A record therefore has the digest's code
under a secret key, with that key's id:

    key id, filled up to 32 bytes with zeros | message authentication code

Records from before the first key have the digest itself, of 32 bytes, and still answer retries.
"""

from hmac import compare_digest
from time import time

from contracts.key_ring import MAX_ID_LENGTH, KeyRing, Purpose
from contracts.signed_tokens import GetKeyRing

_NO_KEYS = KeyRing(())


class RequestHashes:
    """Computes and compares the hashes of records.

    Args:
        get_ring: returns the current keys. Without an active key of the purpose `request`, or before its
            time, records get the digest itself: servers of the release before know no other hash.
    """

    def __init__(self, get_ring: GetKeyRing = lambda: _NO_KEYS) -> None:
        self._get_ring = get_ring

    def compute(self, digest: bytes) -> bytes:
        """Return what the record of a request has.

        Args:
            digest: SHA-256 of the request without its id.
        """
        key = self._get_ring().find_begun_key(Purpose.REQUEST, time())
        return digest if key is None else _join(key.id, key.compute_mac(digest))

    def matches(self, recorded: bytes, digest: bytes) -> bool:
        """Return whether a record is of the request with this digest; False if its key is not in the ring.

        The state of the key does not matter: the hash proves nothing to anybody else.
        """
        if len(recorded) == len(digest):
            return compare_digest(recorded, digest)
        key = self._get_ring().keys.get(recorded[:MAX_ID_LENGTH].rstrip(b"\0").decode(errors="replace"))
        if key is None or key.purpose != Purpose.REQUEST:
            return False
        return compare_digest(recorded, _join(key.id, key.compute_mac(digest)))


def _join(key_id: str, mac: bytes) -> bytes:
    return key_id.encode().ljust(MAX_ID_LENGTH, b"\0") + mac
