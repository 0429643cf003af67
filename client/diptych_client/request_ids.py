"""Request ids that carry their time, so that a server can tell one that it has forgotten from a new one."""

import secrets
from time import time_ns
from uuid import UUID

_VERSION, _VARIANT = 0x7 << 76, 0x2 << 62
_RANDOM_BITS = 80
_FIXED_BITS = 0xF << 76 | 0x3 << 62


def new_request_id() -> str:
    """Return a new UUID of version 7 (RFC 9562): 48 bits of milliseconds, then random bits."""
    value = (time_ns() // 1_000_000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    return str(UUID(int=value & ~_FIXED_BITS | _VERSION | _VARIANT))
