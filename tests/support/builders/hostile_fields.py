"""Requests with one hostile value each: every field of a request type, at every depth, with every value."""

from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.support.builders.fuzz import EXTREMES, ODD_TEXTS

TEXTS = {
    "currency_code": "EUR",
    "region_code": "DE",
    "saga": "fulfilment.fulfilment",
    "day": "2026-01-01",
    "expected_on": "2026-01-01",
    "address_digests": "0123456789abcdef01234567",
    "page_token": "",
    "resume_token": "",
    "at_least_as_fresh": "",
    "state": "",
    "month": "2026-01",
}
"""Usual texts by field name."""
NUMBERS = {"expected_version": 1, "page_size": 10, "nanos": 0, "units": 5, "seconds": 1_800_000_000}
MARKER, NO_UTF8 = "MARKER", b"\xed\xa0\x80\xed\xa0\x80"
"""A text, and as many bytes that encode lone surrogates."""
TIMES = ("google.protobuf.Timestamp", "google.protobuf.Duration")
FIRST, LAST = -62_135_596_800, 253_402_300_799
INVALID_TIMES = [
    (LAST + 1, 0),
    (FIRST - 1, 0),
    (2**63 - 1, 0),
    (-(2**63), 0),
    (0, 10**9),
    (0, -1),
    (0, -(2**31)),
    (1, 2**31 - 1),
]
"""Seconds and nanoseconds that are no Timestamp: the years 10000 and 0, and nanoseconds out of range."""
INVALID_DURATIONS = [(2**63 - 1, 0), (-(2**63), 0), (315_576_000_001, 0), (0, 10**9), (1, -1), (-1, 1)]
EXTREME_TIMES = [(FIRST, 0), (LAST, 999_999_999), (0, 0), (-1, 999_999_999)]
MADE_UP_TOKENS = [
    urlsafe_b64encode(data).decode() for data in (b"junk", b"\xff" * 60, b"z\x12\x01k" + b"m" * 17)
]
UNKNOWN_FIELD = b"\xf8\xff\xff\xff\x0f\x01"
DEEP_GROUP = b"\xf3\xff\xff\xff\x0f" * 300 + b"\xf4\xff\xff\xff\x0f" * 300


@dataclass(frozen=True)
class HostileRequest:
    """A serialised request, the path of its hostile field, and what is wrong with that."""

    path: str
    value: str
    request: bytes
    is_invalid_time: bool = False
    is_made_up_token: bool = False


def build_usual(descriptor: Descriptor, depth: int = 0) -> Any:
    """Return a message with all fields set to usual values; of a oneof the last one counts."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if field.message_type is not None and (field.message_type.GetOptions().map_entry or depth > 5):
            continue
        _set(message, field, _usual_value(field, depth))
    return message


def hostile_requests(descriptor: Descriptor) -> Iterator[HostileRequest]:
    """Yield the usual request with one hostile value after the other."""
    usual = build_usual(descriptor)
    serialized = usual.SerializeToString()
    yield HostileRequest("", "unknown field", serialized + UNKNOWN_FIELD)
    yield HostileRequest("", "deep groups", serialized + DEEP_GROUP)
    yield HostileRequest("", "empty", b"")
    yield from _vary(usual, usual, "")


def _vary(request: Message, message: Any, path: str) -> Iterator[HostileRequest]:
    """Yield the request with each hostile value in each field of one of its messages, which it restores."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        before = type(message)()
        before.CopyFrom(message)
        field_path = f"{path}{field.name}"
        for value in _hostile_values(field):
            _set(message, field, value)
            yield _serialize(request, field, field_path, value)
            message.CopyFrom(before)
        for name in ("unset", "many"):
            if name == "many" and not (field.is_repeated and getattr(message, field.name)):
                continue
            items = list(getattr(message, field.name)) * 200 if name == "many" else []
            message.ClearField(field.name)
            if items:
                getattr(message, field.name).extend(items)
            yield HostileRequest(field_path, name, request.SerializeToString())
            message.CopyFrom(before)
        if field.message_type is not None and field.message_type.full_name not in TIMES:
            items = getattr(message, field.name)
            if field.is_repeated and items:
                yield from _vary(request, items[0], f"{field_path}[0].")
            elif not field.is_repeated and message.HasField(field.name):
                yield from _vary(request, items, f"{field_path}.")


def _serialize(request: Message, field: FieldDescriptor, path: str, value: Any) -> HostileRequest:
    data = request.SerializeToString()
    if value == MARKER:
        return HostileRequest(path, "no UTF-8", data.replace(MARKER.encode(), NO_UTF8))
    invalid = {"google.protobuf.Timestamp": INVALID_TIMES, "google.protobuf.Duration": INVALID_DURATIONS}
    kind = field.message_type.full_name if field.message_type is not None else ""
    is_invalid = (value.seconds, value.nanos) in invalid[kind] if kind in TIMES else False
    is_made_up = field.name.endswith("page_token") and value != ""
    return HostileRequest(path, repr(value)[:40], data, is_invalid, is_made_up)


def _hostile_values(field: FieldDescriptor) -> list[Any]:
    if field.message_type is not None:
        name = field.message_type.full_name
        pairs = INVALID_TIMES if name == TIMES[0] else INVALID_DURATIONS if name == TIMES[1] else []
        made = GetMessageClass(field.message_type)
        return [made(seconds=s, nanos=n) for s, n in (*pairs, *(EXTREME_TIMES if pairs else ()))] or [made()]
    match field.type:
        case field.TYPE_STRING:
            tokens = MADE_UP_TOKENS if field.name.endswith("_token") else ()
            return [*ODD_TEXTS, MARKER, "9" * 400, "x" * 70_000, *tokens]
        case field.TYPE_BYTES:
            return [b"", b"\0", b"\xff" * 70_000]
        case field.TYPE_BOOL:
            return [True, False]
        case field.TYPE_ENUM:
            return [-1, 0, 99, 2**31 - 1, -(2**31)]
        case field.TYPE_DOUBLE | field.TYPE_FLOAT:
            return [float("nan"), float("inf"), float("-inf"), 1e300]
        case field.TYPE_INT64 | field.TYPE_SINT64 | field.TYPE_SFIXED64:
            return EXTREMES
        case field.TYPE_UINT64 | field.TYPE_FIXED64:
            return [0, 1, 2**64 - 1]
        case field.TYPE_UINT32 | field.TYPE_FIXED32:
            return [0, 1, 2**32 - 1]
    return [number for number in EXTREMES if -(2**31) <= number < 2**31]


def _usual_value(field: FieldDescriptor, depth: int) -> Any:
    if field.message_type is not None:
        return build_usual(field.message_type, depth + 1)
    match field.type:
        case field.TYPE_STRING:
            return str(uuid4()) if field.name == "request_id" else TEXTS.get(field.name, "o-1")
        case field.TYPE_BYTES:
            return b""
        case field.TYPE_BOOL:
            return False
    return NUMBERS.get(field.name, 1)


def _set(message: Any, field: FieldDescriptor, value: Any) -> None:
    if field.is_repeated:
        message.ClearField(field.name)
        getattr(message, field.name).append(value)
    elif isinstance(value, Message):
        getattr(message, field.name).CopyFrom(value)
        getattr(message, field.name).SetInParent()
    else:
        setattr(message, field.name, value)
