"""Signed tokens: a payload and its signature, as a string that clients cannot make up.

How it works. The string is URL-safe Base64 of

    payload | 0x7a | length of the rest | key id | MAC (16 bytes) | length of the key id

and the MAC covers the key's purpose and id, a context that both sides know, and the payload. The byte 0x7a
and the length make the signature field 15 of a Protobuf message: a release that does not verify signatures
ignores that field, and can read the payload of a consistency token.
"""

import binascii
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable
from hmac import compare_digest
from time import time

from contracts.key_ring import MAC_SIZE, MAX_ID_LENGTH, KeyRing, KeyState, Purpose

GetKeyRing = Callable[[], KeyRing]
"""Returns the current key ring."""

_TAG = 15 << 3 | 2
"""The Protobuf tag of field 15 with a length."""


class InvalidToken(ValueError):
    """A string is not a token that this system has signed, or its key is revoked.

    Args:
        cause: MALFORMED, UNKNOWN_KEY, REVOKED_KEY or WRONG_SIGNATURE.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(cause.lower().replace("_", " "))
        self.cause = cause


class TokenSigner:
    """Signs and verifies the tokens of one purpose.

    Args:
        purpose: of the keys.
        get_ring: returns the current keys.
    """

    def __init__(self, purpose: Purpose, get_ring: GetKeyRing) -> None:
        self._purpose = purpose
        self._get_ring = get_ring

    def sign(self, payload: bytes, context: str = "") -> str:
        """Return a token.

        Args:
            payload: the token's content; clients can read it.
            context: what the token is valid for; `verify` needs the same.
        """
        key = self._get_ring().find_signing_key(self._purpose, time())
        mac = key.compute_mac(_join(context, payload))
        size = len(key.id)
        header = bytes((_TAG, size + MAC_SIZE + 1))
        return urlsafe_b64encode(b"".join((payload, header, key.id.encode(), mac, bytes((size,))))).decode()

    def verify(self, token: str, context: str = "") -> bytes:
        """Return the payload of a token.

        Raises:
            InvalidToken: the token was not signed with a valid key of this purpose for this context.
        """
        payload, key_id, mac = _split(token)
        key = self._get_ring().keys.get(key_id)
        if key is None or key.purpose != self._purpose:
            raise InvalidToken("UNKNOWN_KEY")
        if not compare_digest(key.compute_mac(_join(context, payload)), mac):
            raise InvalidToken("WRONG_SIGNATURE")
        if key.state == KeyState.REVOKED:
            raise InvalidToken("REVOKED_KEY")
        return payload


def _join(context: str, payload: bytes) -> bytes:
    """Return one message for the MAC; the length keeps two different pairs from making the same message."""
    encoded = context.encode()
    return b"".join((len(encoded).to_bytes(4, "big"), encoded, payload))


def _split(token: str) -> tuple[bytes, str, bytes]:
    """Return the payload, the key's id and the MAC."""
    try:
        data = b64decode(token.encode(), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidToken("MALFORMED") from None
    size = data[-1] if data else 0
    end = len(data) - size - MAC_SIZE - 3
    # Base64 has several forms of the same bytes; each token has one form only.
    if not 0 < size <= MAX_ID_LENGTH or end < 0 or urlsafe_b64encode(data) != token.encode():
        raise InvalidToken("MALFORMED")
    if data[end : end + 2] != bytes((_TAG, size + MAC_SIZE + 1)):
        raise InvalidToken("MALFORMED")
    key_id, mac = data[end + 2 : end + 2 + size], data[-1 - MAC_SIZE : -1]
    return data[:end], key_id.decode(errors="replace"), mac
