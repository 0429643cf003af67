"""States of aggregates, sealed with the keys of all persons whose data they hold. Pure.

A sealed state is a JSON array, `["sealed", ["<id of a key>", ...], "<Base64>"]`, which no code takes for a
state: those are objects. It is encrypted with one key after the other, so it is readable only while all of
them exist; otherwise the events are folded again.
"""

from base64 import b64decode
from binascii import b2a_base64
from collections.abc import Sequence
from os import urandom

import msgspec
from cryptography.exceptions import InvalidTag

from contracts.personal_data import NONCE_SIZE, Keys, SubjectKey

_MARK = "sealed"
_BEGIN = f'["{_MARK}",'


class _SealedState(msgspec.Struct, frozen=True, array_like=True):
    mark: str
    keys: Sequence[str]
    content: str


_decode = msgspec.json.Decoder(_SealedState).decode


def seal_state(state: str, stream: str, keys: Sequence[SubjectKey]) -> str | None:
    """Return a state that only holders of the keys can read; None if one of them was destroyed.

    Args:
        state: as JSON.
        stream: of the state.
        keys: of the persons.
    """
    content = state.encode()
    for key in keys:
        if key.cipher is None:
            return None
        nonce = urandom(NONCE_SIZE)
        content = nonce + key.cipher.encrypt(nonce, content, stream.encode())
    ids = '","'.join([key.id.hex() for key in keys])
    return f'{_BEGIN}["{ids}"],"{b2a_base64(content, newline=False).decode()}"]'


def list_state_keys(state: str | None) -> list[bytes]:
    """Return the ids of the keys that a state was sealed with; none if it is not sealed."""
    if state is None or not state.startswith(_BEGIN):
        return []
    try:
        return [bytes.fromhex(id_) for id_ in _decode(state).keys]
    except (msgspec.MsgspecError, ValueError):
        return []


def open_state(state: str | None, stream: str, keys: Keys) -> str | None:
    """Return a state in clear; None if it cannot be opened.

    Args:
        state: as it is stored; None for none.
        stream: of the state.
        keys: by id, those that `list_state_keys` returns.
    """
    if state is None or not state.startswith(_BEGIN):
        return state
    try:
        sealed = _decode(state)
        content = b64decode(sealed.content)
        for id_ in reversed(sealed.keys):
            cipher = keys[bytes.fromhex(id_)].cipher
            content = cipher.decrypt(content[:NONCE_SIZE], content[NONCE_SIZE:], stream.encode())
        return content.decode()
    except (msgspec.MsgspecError, LookupError, AttributeError, InvalidTag, ValueError):
        return None
