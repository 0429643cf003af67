"""Fuzzed requests, generated from message descriptors: usual, odd and corrupted ones, and random bytes."""

from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any
from uuid import UUID

from diptych.consistency.v1.consistency_pb2 import StreamVersion, Token
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

IDS = ["o-1", "o-2", "main", "c-1"]
USUAL_TEXTS = {
    "request_id": st.uuids(version=4).map(str),
    "order_id": st.sampled_from(IDS),
    "customer_id": st.sampled_from(IDS),
    "currency_code": st.sampled_from(["EUR"] * 9 + ["USD"]),
    "region_code": st.just("DE"),
    "saga": st.sampled_from(["", "fulfilment.fulfilment", "banking.hold_deadline"]),
    "state": st.sampled_from(["", "PREPARING", "CONFIRMED"]),
}
"""Strategies of usual values of strings, by field name."""
USUAL_NUMBERS = {
    "expected_version": st.integers(1, 9),
    "quantity": st.integers(1, 10_000),
    "units": st.integers(0, 10**9),
    "nanos": st.integers(0, 10**9 - 1),
    "page_size": st.integers(0, 100),
    "state": st.integers(0, 8),
    "seconds": st.integers(0, 2 * 10**9),
}
"""Strategies of usual values of numbers, by field name."""
ODD_TEXTS = [
    "",
    "\0",
    "a b",
    "ä" * 200,
    "x" * 5_000,
    "'; --",
    "{}",
    "%s",
    "../..",
    "🜁" * 64,
    "-",
    "not-a-uuid",
]
EXTREMES = [0, 1, -1, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63), 999_999_999, 253_402_300_800]
TOKEN_FIELDS = ("page_token", "resume_token", "at_least_as_fresh")
"""Fields with tokens that servers issue."""

Sign = Callable[[bytes], str]
"""Returns a token with this content, signed with the key of the servers."""


def requests(message: Descriptor, sign: Sign) -> st.SearchStrategy[bytes]:
    """Return a strategy of serialised requests of a type and of bytes that are none."""
    usual, odd = (messages(message, oddity, sign).map(_serialize) for oddity in (0, 15))
    corrupted = st.tuples(odd, st.data()).map(_corrupt)
    return st.one_of(usual, usual, odd, odd, corrupted, st.binary(max_size=300))


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, oddity: int, sign: Sign) -> Message:
    """Draw a message of a type. `oddity` per cent of its fields are odd, and as many are missing."""
    message = GetMessageClass(descriptor)()
    fields: Any = descriptor.fields
    for field in fields:
        if draw(st.integers(1, 100)) > oddity:
            _set_field(draw, message, field, oddity, sign)
    return message


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _set_field(draw: st.DrawFn, message: Any, field: FieldDescriptor, oddity: int, sign: Sign) -> None:
    if not field.is_repeated:
        values = [draw(_values(field, oddity, sign))]
    else:
        times = 50 if draw(st.integers(1, 100)) <= oddity else 1
        values = draw(st.lists(_values(field, oddity, sign), min_size=not oddity, max_size=3)) * times
    for value in values:
        if field.is_repeated:
            getattr(message, field.name).append(value)
        elif isinstance(value, Message):
            getattr(message, field.name).CopyFrom(value)
        else:
            setattr(message, field.name, value)


def _values(field: FieldDescriptor, oddity: int, sign: Sign) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(field.message_type, oddity, sign)
    odd = _odd_values(field)
    if field.name in TOKEN_FIELDS:
        usual: st.SearchStrategy[Any] = st.one_of(st.just(""), st.just(""), tokens(sign))
    elif field.type == field.TYPE_STRING:
        usual = USUAL_TEXTS.get(field.name, st.sampled_from(IDS))
    else:
        usual = USUAL_NUMBERS.get(field.name, odd)
    return st.integers(1, 100).flatmap(lambda percent: odd if percent <= oddity else usual)


def _odd_values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    match field.type:
        case field.TYPE_STRING:
            return st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=80))
        case field.TYPE_BYTES:
            return st.binary(max_size=50)
        case field.TYPE_BOOL:
            return st.booleans()
        case field.TYPE_INT64:
            return st.sampled_from(EXTREMES)
        case field.TYPE_INT32 | field.TYPE_ENUM:
            return st.sampled_from([number for number in EXTREMES if abs(number) < 2**31])
    raise AssertionError(f"no odd values for {field.full_name}")


@st.composite
def tokens(draw: st.DrawFn, sign: Sign) -> str:
    """Draw a text that resembles a consistency token, signed or not, or at least base64."""
    names = st.sampled_from(["ordering.order.o-1", "ordering.order.", "", ".", "a.b.c.d", "ä.b.c", "x" * 300])
    versions = st.sampled_from([0, 1, -1, 2**63 - 1])
    streams = st.lists(st.builds(StreamVersion, stream=names, version=versions), max_size=3)
    incarnation = st.sampled_from(["", "x", str(UUID(int=0))])
    token = Token(incarnation=draw(incarnation), streams=draw(streams)).SerializeToString()
    content = draw(st.sampled_from([token, token, token[:-1], b"\xff\xfe"]))
    return draw(st.sampled_from([sign(content), sign(content), urlsafe_b64encode(content).decode()]))


def _corrupt(request_and_data: tuple[bytes, st.DataObject]) -> bytes:
    """Return the request with one to four bytes changed or inserted, or with its end cut off."""
    request, data = bytearray(request_and_data[0]), request_and_data[1]
    for _ in range(data.draw(st.integers(1, 4))):
        if not request:
            break
        index = data.draw(st.integers(0, len(request) - 1))
        match data.draw(st.sampled_from("xio")):
            case "x":
                request[index] = data.draw(st.integers(0, 255))
            case "i":
                request.insert(index, data.draw(st.integers(0, 255)))
            case "o":
                del request[index:]
    return bytes(request)
