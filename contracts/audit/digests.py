"""Digests of recorded rows: SHA-256 over an encoding that says where each field begins and ends.

How it works. A digest covers a list of fields, the first of which names the record and its version. A field
is its length, as 4 bytes in network byte order, and its bytes; a missing one is the length 0xffffffff alone.
Texts are UTF-8, integers 8 bytes with a sign, times the integer of microseconds since 1970 in UTC. JSON is
the text as it is stored. So two different rows never have the same encoding, and every language can make it.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from struct import Struct
from uuid import UUID

SIZE = 32
"""Bytes of a digest."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MISSING = b"\xff\xff\xff\xff"

Value = str | bytes | int | datetime | UUID | None

_LENGTH = Struct(">I").pack
_INTEGER = Struct(">Iq").pack
"""Encodes a field with an integer; takes its length, which is 8, first."""
_EVENT = b"\0\0\0\x07event 1"
_REQUEST = b"\0\0\0\x09request 1"


def count_microseconds(time: datetime) -> int:
    """Return the microseconds since 1970."""
    return (time - EPOCH) // MICROSECOND


def digest_event(
    previous: bytes,
    stream: str,
    version: int,
    type_name: str,
    recorded_at: datetime,
    metadata: str,
    data: bytes,
) -> bytes:
    """Return the digest of an event, a link of its stream's chain.

    The same as `digest_fields` of these values, and twice as fast.

    Args:
        previous: the digest of the event before it; empty for the first link.
        stream: name of the stream.
        version: of the event.
        type_name: full name of the message.
        recorded_at: time of the record.
        metadata: JSON, as it is stored.
        data: the message, as it is stored.
    """
    name, kind, document = stream.encode(), type_name.encode(), metadata.encode()
    return sha256(
        b"".join(
            (
                _EVENT,
                _LENGTH(len(previous)),
                previous,
                _LENGTH(len(name)),
                name,
                _INTEGER(8, version),
                _LENGTH(len(kind)),
                kind,
                _INTEGER(8, (recorded_at - EPOCH) // MICROSECOND),
                _LENGTH(len(document)),
                document,
                _LENGTH(len(data)),
                data,
            )
        )
    ).digest()


def digest_request(
    caller: str,
    request_id: str,
    type_name: str,
    request_hash: bytes,
    outcome: str,
    rejection: str | None,
    receipt: str | None,
    recorded_at: datetime,
) -> bytes:
    """Return the digest of a row of `requests`, as `digest_fields` would; its JSON is the stored text."""
    fields = [caller.encode(), request_id.encode(), type_name.encode(), request_hash, outcome.encode()]
    parts = [_REQUEST]
    for field in fields:
        parts += _LENGTH(len(field)), field
    for document in (rejection, receipt):
        if document is None:
            parts.append(MISSING)
        else:
            field = document.encode()
            parts += _LENGTH(len(field)), field
    parts.append(_INTEGER(8, (recorded_at - EPOCH) // MICROSECOND))
    return sha256(b"".join(parts)).digest()


def digest_fields(record: str, values: Iterable[Value]) -> bytes:
    """Return the digest of a row.

    Args:
        record: name and version of the record, for instance `audit 1`.
        values: of the columns, in the order of the record's definition.
    """
    return sha256(b"".join(map(_encode, (record, *values)))).digest()


def _encode(value: Value) -> bytes:
    match value:
        case None:
            return MISSING
        case str():
            content = value.encode()
        case bytes():
            content = value
        case int():
            return _INTEGER(8, value)
        case datetime():
            return _INTEGER(8, count_microseconds(value))
        case UUID():
            content = str(value).encode()
    return _LENGTH(len(content)) + content
