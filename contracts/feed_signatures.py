"""Signatures of the messages in the stream: one MAC for each, with a key of the purpose `feed`.

How it works. The header SIGNATURE is `<key id>.<MAC in hexadecimal>`. The MAC covers the stream's epoch, the
message's sequence and subject, the event's headers by name and value, and its data. So a message that was
changed, moved, sent twice, or taken over from another epoch is not valid.
"""

from collections.abc import Mapping
from hmac import compare_digest

from contracts.key_ring import Key, KeyRing, KeyState, Purpose

SIGNATURE = "ce-signature"
"""The header; an extension attribute in CloudEvents' terms."""


def sign(key: Key, epoch: str, sequence: int, subject: str, headers: Mapping[str, str], data: bytes) -> str:
    """Return the signature of a message.

    Args:
        key: with which to sign.
        epoch: of the stream.
        sequence: of the message in the stream.
        subject: under which readers get it.
        headers: the event's (`envelope.to_headers`).
        data: the event's.
    """
    text = "\n".join((epoch, str(sequence), subject, *headers, *headers.values(), ""))
    return f"{key.id}.{key.compute_mac(b''.join((text.encode(), data))).hex()}"


def name_key(headers: Mapping[str, str]) -> str:
    """Return the id of the key that a message names; empty if it is not signed."""
    return headers.get(SIGNATURE, "").partition(".")[0]


def find_key(ring: KeyRing, key_id: str) -> Key | None:
    """Return the key that verifies; None if there is none with this id, or it is revoked."""
    key = ring.keys.get(key_id)
    return key if key and key.purpose == Purpose.FEED and key.state != KeyState.REVOKED else None


def is_valid(
    key: Key, epoch: str, sequence: int, subject: str, headers: Mapping[str, str], data: bytes
) -> bool:
    """Return whether a message was signed with this key, for this place in the stream.

    Args:
        key: the one that the message names.
        epoch: of the stream from which it was read.
        sequence: at which it was read.
        subject: of the message.
        headers: all of them; those that JetStream adds are not signed.
        data: of the message.
    """
    signed = {
        name: value
        for name, value in headers.items()
        if name.startswith(("ce-", "diptych-")) or name == "traceparent"
    }
    signature = signed.pop(SIGNATURE, "")
    expected = sign(key, epoch, sequence, subject, signed, data)
    return compare_digest(signature.encode(), expected.encode())
