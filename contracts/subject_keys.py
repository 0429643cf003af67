"""Keys of persons, as PostgreSQL stores them and the relay sends them: wrapped with a master key.

How it works. Each person whose data is recorded (a subject) has a key, in one row of `subject_keys`. No key
leaves the processes that make and use it but wrapped. The master keys are those of the purpose `personal` in
the key ring; a key management service can take their place (`Wrapper`). Readers without PostgreSQL ask a
relay for wrapped keys, over NATS.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from os import urandom
from time import time
from typing import Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from contracts.key_ring import Purpose
from contracts.personal_data import ID_SIZE, NONCE_SIZE, SubjectKey
from contracts.signed_tokens import GetKeyRing

KEYS_SUBJECT = "diptych.subject-keys"
"""Subject of the core NATS request to which relays reply with wrapped keys."""
MAX_KEYS = 500
"""Ids in a request, at most."""
_KEY_SIZE = 32


class WrappedKey(msgspec.Struct, frozen=True, array_like=True):
    """The key of a subject, wrapped."""

    id: bytes
    wrapped_by: str
    """The id of the master key."""
    wrapped: bytes | None
    """None if the key was destroyed."""


class KeysRequest(msgspec.Struct, frozen=True):
    """A request for wrapped keys by their ids."""

    ids: Sequence[bytes]


class KeysReply(msgspec.Struct, frozen=True):
    """Those of the requested keys that PostgreSQL has."""

    keys: Sequence[WrappedKey]


encode = msgspec.json.Encoder().encode
decode_request = msgspec.json.Decoder(KeysRequest).decode
decode_reply = msgspec.json.Decoder(KeysReply).decode


class MasterKeyMissing(Exception):
    """A key is wrapped with a master key that this process does not have."""


class Wrapper(Protocol):
    """Wraps keys with a master key, and unwraps them; both may ask another service."""

    @property
    def can_wrap(self) -> bool:
        """Whether there is a master key to wrap with. Without one, personal data is recorded in clear."""

    async def wrap(self, keys: Mapping[bytes, bytes]) -> list[WrappedKey]:
        """Return keys wrapped.

        Args:
            keys: by their ids.

        Raises:
            MasterKeyMissing: there is no master key.
        """

    async def unwrap(self, keys: Iterable[WrappedKey]) -> dict[bytes, SubjectKey]:
        """Return keys by their ids, without those that are damaged.

        Raises:
            MasterKeyMissing: a master key is missing.
        """


class RingWrapper:
    """Wraps with the keys of a key ring.

    Args:
        get_ring: returns the current keys.
    """

    def __init__(self, get_ring: GetKeyRing) -> None:
        self._get_ring = get_ring

    @property
    def can_wrap(self) -> bool:
        return self._get_ring().find_begun_key(Purpose.PERSONAL, time()) is not None

    async def wrap(self, keys: Mapping[bytes, bytes]) -> list[WrappedKey]:
        master = self._get_ring().find_begun_key(Purpose.PERSONAL, time())
        if master is None:
            raise MasterKeyMissing(f"no active key of the purpose {Purpose.PERSONAL}")
        cipher, wrapped = master.load_cipher(), list[WrappedKey]()
        for id_, key in keys.items():
            nonce = urandom(NONCE_SIZE)
            wrapped.append(WrappedKey(id_, master.id, nonce + cipher.encrypt(nonce, key, id_)))
        return wrapped

    async def unwrap(self, keys: Iterable[WrappedKey]) -> dict[bytes, SubjectKey]:
        keys = list(keys)
        destroyed = {each.id: SubjectKey(each.id, None) for each in keys if each.wrapped is None}
        opened = await self.unwrap_secrets(keys)
        return destroyed | {id_: SubjectKey(id_, AESGCM(key)) for id_, key in opened.items()}

    async def unwrap_secrets(self, keys: Iterable[WrappedKey]) -> dict[bytes, bytes]:
        """Return the keys themselves by their ids, without those that are damaged or destroyed.

        Raises:
            MasterKeyMissing: a master key is missing.
        """
        ring, ciphers, found = self._get_ring(), dict[str, AESGCM](), dict[bytes, bytes]()
        for each in keys:
            if each.wrapped is None:
                continue
            if each.wrapped_by not in ciphers:
                master = ring.keys.get(each.wrapped_by)
                if master is None or master.purpose != Purpose.PERSONAL:
                    raise MasterKeyMissing(f"no key {each.wrapped_by} of the purpose {Purpose.PERSONAL}")
                ciphers[each.wrapped_by] = master.load_cipher()
            nonce, content = each.wrapped[:NONCE_SIZE], each.wrapped[NONCE_SIZE:]
            # One that is damaged is left out: events with it cannot be read, all others can.
            with suppress(InvalidTag, ValueError):
                found[each.id] = ciphers[each.wrapped_by].decrypt(nonce, content, each.id)
        return found


async def create_keys(
    wrapper: Wrapper, subjects: Collection[str]
) -> tuple[dict[str, WrappedKey], dict[bytes, SubjectKey]]:
    """Return a new key for each of the subjects: wrapped by subject, and in use by id."""
    keys = {urandom(ID_SIZE): urandom(_KEY_SIZE) for _ in subjects}
    wrapped = dict(zip(subjects, await wrapper.wrap(keys), strict=True))
    return wrapped, {id_: SubjectKey(id_, AESGCM(key)) for id_, key in keys.items()}
