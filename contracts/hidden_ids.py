"""Hidden ids: ids of streams that stand for values which nobody must read from them.

How it works. Such an id is the id of a key of the purpose `unique`, and a message authentication code under
that key, of the type of the streams and the value. So an id tells which key it needs, and equal values in
streams of two types have ids without resemblance.

Each key gives another id, so a value has as many ids as there are such keys. New streams get the one of the
key that signs; readers look under all of them. Keys that no longer sign count too, and revoked ones: what was
stored under their ids must still be found.
"""

from base64 import urlsafe_b64encode

from contracts.key_ring import Key, KeyRing, Purpose

CODE_LENGTH = 22
"""Characters after the id of the key and a `-`."""


def list_hidden_ids(ring: KeyRing, stream_type: str, value: str, now: float) -> tuple[str, ...]:
    """Return the ids of a value, the one for new streams first.

    Args:
        ring: the current keys.
        stream_type: the type of the streams.
        value: in its one form.
        now: seconds since 1970.

    Raises:
        LookupError: the ring has no active key of the purpose `unique`.
    """
    signing = ring.find_signing_key(Purpose.UNIQUE, now)
    others = [key for key in ring.keys.values() if key.purpose == Purpose.UNIQUE and key.id != signing.id]
    return tuple(hide(key, stream_type, value) for key in (signing, *others))


def hide(key: Key, stream_type: str, value: str) -> str:
    """Return the id of a value under one key."""
    code = urlsafe_b64encode(key.compute_mac(f"{stream_type}\0{value}".encode()))
    return f"{key.id}-{code[:CODE_LENGTH].decode()}"
