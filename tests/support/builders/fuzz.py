"""Requests that nobody would send, made from the methods' descriptors: sane, odd, broken, and mere bytes."""

from base64 import urlsafe_b64encode
from typing import Any
from uuid import UUID

from diptych.consistency.v1.consistency_pb2 import StreamVersion, Token
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

IDS = ["o-1", "o-2", "main", "c-1"]
SANE = {
    "request_id": st.uuids(version=4).map(str),
    "order_id": st.sampled_from(IDS),
    "customer_id": st.sampled_from(IDS),
    "currency_code": st.sampled_from(["EUR"] * 9 + ["USD"]),
    "region_code": st.just("DE"),
    "expected_version": st.integers(1, 9),
    "quantity": st.integers(1, 10_000),
    "units": st.integers(0, 10**9),
    "nanos": st.integers(0, 10**9 - 1),
    "page_size": st.integers(0, 100),
    "state": st.integers(0, 8),
    "seconds": st.integers(0, 2 * 10**9),
}
"""What fields of these names usually hold."""
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
SEALED = ("page_token", "resume_token", "at_least_as_fresh")
"""Fields whose content only servers understand."""


def requests(message: Descriptor) -> st.SearchStrategy[bytes]:
    """Return serialised requests of a type, and what is none."""
    sane, odd = (messages(message, oddity).map(_serialized) for oddity in (0, 15))
    return st.one_of(sane, sane, odd, odd, st.tuples(odd, st.data()).map(_bent), st.binary(max_size=300))


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, oddity: int) -> Message:
    """Return messages of a type, of whose fields so many in a hundred are odd, and as many missing."""
    message = GetMessageClass(descriptor)()
    fields: Any = descriptor.fields
    for field in fields:
        if draw(st.integers(1, 100)) > oddity:
            _fill(draw, message, field, oddity)
    return message


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def _fill(draw: st.DrawFn, message: Any, field: FieldDescriptor, oddity: int) -> None:
    if not field.is_repeated:
        values = [draw(_values(field, oddity))]
    else:
        times = 50 if draw(st.integers(1, 100)) <= oddity else 1
        values = draw(st.lists(_values(field, oddity), min_size=not oddity, max_size=3)) * times
    for value in values:
        if field.is_repeated:
            getattr(message, field.name).append(value)
        elif isinstance(value, Message):
            getattr(message, field.name).CopyFrom(value)
        else:
            setattr(message, field.name, value)


def _values(field: FieldDescriptor, oddity: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(field.message_type, oddity)
    odd = _odd(field)
    if field.name in SEALED:
        usual: st.SearchStrategy[Any] = st.one_of(st.just(""), st.just(""), tokens())
    else:
        usual = SANE.get(field.name, st.sampled_from(IDS) if field.type == field.TYPE_STRING else odd)
    return st.integers(1, 100).flatmap(lambda dice: odd if dice <= oddity else usual)


def _odd(field: FieldDescriptor) -> st.SearchStrategy[Any]:
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
def tokens(draw: st.DrawFn) -> str:
    """Return what looks like a consistency token, or like base64."""
    names = st.sampled_from(["ordering.order.o-1", "ordering.order.", "", ".", "a.b.c.d", "ä.b.c", "x" * 300])
    versions = st.sampled_from([0, 1, -1, 2**63 - 1])
    streams = st.lists(st.builds(StreamVersion, stream=names, version=versions), max_size=3)
    incarnation = st.sampled_from(["", "x", str(UUID(int=0))])
    token = Token(incarnation=draw(incarnation), streams=draw(streams)).SerializeToString()
    return urlsafe_b64encode(draw(st.sampled_from([token, token, token[:-1], b"\xff\xfe"]))).decode()


def _bent(drawn: tuple[bytes, st.DataObject]) -> bytes:
    """Return a request with some of its bytes changed, cut out or put in."""
    request, data = bytearray(drawn[0]), drawn[1]
    for _ in range(data.draw(st.integers(1, 4))):
        if not request:
            break
        where = data.draw(st.integers(0, len(request) - 1))
        match data.draw(st.sampled_from("xio")):
            case "x":
                request[where] = data.draw(st.integers(0, 255))
            case "i":
                request.insert(where, data.draw(st.integers(0, 255)))
            case "o":
                del request[where:]
    return bytes(request)
