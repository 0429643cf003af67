"""What each search index publishes of its content: the contract between query servers and `diptych verify`.

A query server writes one string for each of its indexes under `search_index:<projection>:<instance>`. It
expires LIFETIME after the server has ended.
"""

from hashlib import blake2b

import msgspec

LIFETIME = 15.0
"""Seconds."""


class SearchDigest(msgspec.Struct, frozen=True):
    """The documents of one index, as it finds them itself."""

    documents: int
    """Their number."""
    checks: int
    """The sum of the hashes of their checks."""


def make_key(projection: str, instance: str) -> str:
    return f"search_index:{projection}:{instance}"


def hash_check(check: str) -> int:
    """Return the hash of a document's check: 31 bits, so that a sum of a million is exact as a float."""
    return int.from_bytes(blake2b(check.encode(), digest_size=4).digest()) >> 1


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(SearchDigest).decode
