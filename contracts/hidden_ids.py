"""Hidden ids: values that must not be read from ids, as message authentication codes under the key ring.

How it works. An id is the code of a value under a key of the purpose `unique`. Each key gives another id, so
a value has as many ids as there are such keys. New streams get the one of the key that signs; readers look
under all of them. Keys that no longer sign count too, and revoked ones: what was stored under their ids must
still be found.
"""

from contracts.key_ring import KeyRing, Purpose


def list_hidden_ids(ring: KeyRing, value: str, now: float) -> tuple[str, ...]:
    """Return the ids of a value, the one for new streams first.

    Raises:
        LookupError: the ring has no active key of the purpose `unique`.
    """
    signing = ring.find_signing_key(Purpose.UNIQUE, now)
    others = [key for key in ring.keys.values() if key.purpose == Purpose.UNIQUE and key.id != signing.id]
    return tuple(key.compute_mac(value.encode()).hex() for key in (signing, *others))
