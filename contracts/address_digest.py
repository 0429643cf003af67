"""The digest by which a shipping address is recognised where the address itself is not stored."""

from hashlib import blake2b

from google.protobuf.message import Message

DIGEST_SIZE = 12
"""Bytes of a digest, which is written in hexadecimal."""


def digest_address(address: Message) -> str:
    """Return a digest that is equal for equal addresses."""
    return blake2b(address.SerializeToString(deterministic=True), digest_size=DIGEST_SIZE).hexdigest()
