"""Personal data in recorded events: sealed with a key of the person whom it is about. Pure.

How it works. A message with the option `subject` has personal fields, a field with the id of a person, and a
field `sealed`. Before an event is recorded, the personal fields of each such message in it, however deep, are
taken out, serialised as a message of the same type, and encrypted with the person's key:

    0x01 | key's id (16 bytes) | nonce (12 bytes) | AES-256-GCM

The additional data of the cipher are the stream and the event's type, so sealed data is of no use elsewhere.
Readers open an event first. Once its key is destroyed, the fields stay empty for good.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from os import urandom
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from diptych.privacy.v1 import privacy_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message_factory import GetMessageClass

from contracts.personal_fields import is_personal

SEALED = "sealed"
"""The field with the sealed data of its message."""
_VERSION = b"\x01"
ID_SIZE, NONCE_SIZE = 16, 12
"""Bytes."""
MAX_OVERHEAD = 80
"""Bytes that a sealed part takes more than its data, at most: header, tag, and the fields around it."""
_HEADER_SIZE = len(_VERSION) + ID_SIZE + NONCE_SIZE


class Sealed(Exception):
    """An event was not opened before it was decoded, or no key of its sealed data is known."""


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """The key of a person, who is the subject of data."""

    id: bytes
    """ID_SIZE random bytes, by which sealed data names it."""
    cipher: Any
    """`AESGCM`; None if the key was destroyed."""


class TypedData(Protocol):
    """An event, as it is stored or published."""

    @property
    def type(self) -> str: ...

    @property
    def data(self) -> bytes: ...


Event = TypeVar("Event", bound=TypedData)
FindKey = Callable[[str], SubjectKey]
"""Returns the key of a subject."""
Keys = Mapping[bytes, SubjectKey]
"""Keys by their ids."""


class _Kind(NamedTuple):
    """The kind of a field."""

    is_optional: bool
    """Whether it may be unset, unlike empty."""
    is_message: bool
    is_repeated: bool

    @classmethod
    def of(cls, field: FieldDescriptor) -> Self:
        is_message = field.message_type is not None and not field.is_repeated
        return cls(is_message or field.containing_oneof is not None, is_message, bool(field.is_repeated))


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where a type of message has personal data of subjects."""

    subject: str
    """The field with the subject's id; empty if the message's own fields are not sealed."""
    dispensable: bool
    """Whether it is recorded without these fields once the subject was forgotten."""
    personal: tuple[tuple[str, _Kind], ...]
    """The own fields that are sealed."""
    parts: tuple[tuple[str, bool, "_Plan"], ...]
    """Fields with messages that have such data: name, whether it is repeated, and the message's plan."""


class Part(NamedTuple):
    """A message with personal data within an event, before it is sealed."""

    message: Any
    subject: str
    dispensable: bool
    personal: tuple[tuple[str, _Kind], ...]


def find_parts(message: Any) -> list[Part]:
    """Return the parts of an event that are to be sealed."""
    plan = _get_plan(message.DESCRIPTOR)
    if plan is None:
        return []
    return [
        Part(part, subject, of_part.dispensable, of_part.personal)
        for part, of_part in _iterate(message, plan)
        if (subject := getattr(part, of_part.subject)) and _has_data(part, of_part)
    ]


def seal_parts(parts: Iterable[Part], stream: str, event_type: str, find_key: FindKey) -> None:
    """Seal parts of an event; the data of a person whose key was destroyed is left out.

    Args:
        parts: of one event; they are changed.
        stream: of the event.
        event_type: the full name of its message.
        find_key: of a subject.
    """
    bound = _bind(stream, event_type)
    for part in parts:
        key, content = find_key(part.subject), _take_out(part)
        if key.cipher is not None:
            nonce = urandom(NONCE_SIZE)
            sealed = key.cipher.encrypt(nonce, content, bound)
            part.message.sealed = b"".join((_VERSION, key.id, nonce, sealed))


def seal(message: Any, stream: str, find_key: FindKey) -> None:
    """Seal all personal data of an event that has a subject; the arguments are those of `seal_parts`."""
    seal_parts(find_parts(message), stream, message.DESCRIPTOR.full_name, find_key)


def _has_data(part: Any, plan: _Plan) -> bool:
    return any(
        part.HasField(name) if kind.is_optional else getattr(part, name) for name, kind in plan.personal
    )


def _take_out(of: Part) -> bytes:
    """Remove the personal fields of a message; return a serialised message of its type with them alone."""
    part = of.message
    content = type(part)()
    for name, kind in of.personal:
        if not (part.HasField(name) if kind.is_optional else getattr(part, name)):
            continue
        if kind.is_message:
            getattr(content, name).CopyFrom(getattr(part, name))  # an empty message is one, too
        elif kind.is_repeated:
            getattr(content, name).MergeFrom(getattr(part, name))
        else:
            setattr(content, name, getattr(part, name))
        part.ClearField(name)
    return bytes(content.SerializeToString())


def may_be_sealed(event_type: str) -> bool:
    """Return whether events of a type may have sealed data. An event of an unknown type has none to read."""
    return _find_plan(event_type) is not None


def list_key_ids(event: TypedData) -> set[bytes]:
    """Return the ids of the keys that open an event; none if it is in clear or does not parse."""
    return {_get_key_id(part) for part, _ in _list_parts(event) if _is_sealed(part)}


def open_data(event: TypedData, stream: str, keys: Keys) -> bytes:
    """Return the data of an event in clear: without what is sealed with a destroyed key.

    What is sealed with a key that is not among these stays so.

    Args:
        event: as it was recorded.
        stream: of the event.
        keys: by id; those that `list_key_ids` names.

    Raises:
        Exception: the data does not parse, or was not sealed for this event.
    """
    plan = _find_plan(event.type)
    if plan is None:
        return event.data
    message, bound, changed = _parse(event), _bind(stream, event.type), False
    for part, _ in _iterate(message, plan):
        if not _is_sealed(part) or (key := keys.get(_get_key_id(part))) is None:
            continue
        sealed, changed = part.sealed, True
        part.ClearField(SEALED)
        if key.cipher is not None:
            nonce = sealed[_HEADER_SIZE - NONCE_SIZE : _HEADER_SIZE]
            part.MergeFromString(key.cipher.decrypt(nonce, sealed[_HEADER_SIZE:], bound))
    return bytes(message.SerializeToString(deterministic=True)) if changed else event.data


def remove_sealed(event: TypedData) -> bytes:
    """Return the data of an event without what is sealed, for readers of its other fields.

    Raises:
        Exception: the data does not parse.
    """
    plan = _find_plan(event.type)
    if plan is None:
        return event.data
    message, changed = _parse(event), False
    for part, _ in _iterate(message, plan):
        if _is_sealed(part):
            part.ClearField(SEALED)
            changed = True
    return bytes(message.SerializeToString(deterministic=True)) if changed else event.data


def list_subjects(event: TypedData) -> set[str]:
    """Return the persons whose data an event may have; none if it does not parse."""
    return {getattr(part, of_part.subject) for part, of_part in _list_parts(event)} - {""}


def has_clear_data(event: TypedData, subject: str) -> bool:
    """Return whether an event has data of a subject that is not sealed; False if it does not parse."""
    return any(
        getattr(part, of_part.subject) == subject
        and not {name for name, _ in of_part.personal}.isdisjoint(f.name for f, _ in part.ListFields())
        for part, of_part in _list_parts(event)
    )


def check_open(message: Any) -> None:
    """Check that an event was opened before it was decoded.

    Raises:
        Sealed: it was not.
    """
    plan = _get_plan(message.DESCRIPTOR)
    if plan is not None and any(_is_sealed(part) for part, _ in _iterate(message, plan)):
        raise Sealed(f"{message.DESCRIPTOR.full_name}: sealed with a key that is not known")


def list_subject_messages(descriptor: Descriptor) -> list[Descriptor]:
    """Return the messages with a subject that a message consists of, itself included."""
    plan = _get_plan(descriptor)
    return [] if plan is None else list(_list_described(descriptor, plan))


def _list_described(descriptor: Any, plan: _Plan) -> Iterator[Descriptor]:
    if plan.subject:
        yield descriptor
    for name, _, of_part in plan.parts:
        yield from _list_described(descriptor.fields_by_name[name].message_type, of_part)


def _bind(stream: str, event_type: str) -> bytes:
    return f"{stream}\0{event_type}".encode()


def _is_sealed(part: Any) -> bool:
    return bool(part.sealed[:1] == _VERSION and len(part.sealed) > _HEADER_SIZE)


def _get_key_id(part: Any) -> bytes:
    return bytes(part.sealed[len(_VERSION) : len(_VERSION) + ID_SIZE])


def _parse(event: TypedData) -> Any:
    return GetMessageClass(Default().FindMessageTypeByName(event.type)).FromString(event.data)


def _list_parts(event: TypedData) -> list[tuple[Any, _Plan]]:
    """Return the messages with a subject in an event, with their plans; none if it does not parse."""
    if (plan := _find_plan(event.type)) is None:
        return []
    try:
        message = _parse(event)
    except Exception:  # whoever decodes the event reports it
        return []
    return list(_iterate(message, plan))


def _iterate(message: Any, plan: _Plan) -> Iterator[tuple[Any, _Plan]]:
    """Yield the messages with a subject in a message, with their plans."""
    if plan.subject:
        yield message, plan
    for name, is_repeated, of_part in plan.parts:
        if is_repeated:
            for part in getattr(message, name):
                yield from _iterate(part, of_part)
        elif message.HasField(name):
            yield from _iterate(getattr(message, name), of_part)


@cache
def _find_plan(event_type: str) -> _Plan | None:
    try:
        return _get_plan(Default().FindMessageTypeByName(event_type))
    except KeyError:
        return None


@cache
def _get_plan(descriptor: Descriptor) -> _Plan | None:
    """Return where a type of message has personal data of subjects; None if nowhere."""
    return _build_plan(descriptor, frozenset())


def _build_plan(descriptor: Any, seen: Collection[str]) -> _Plan | None:
    """Return the plan of a message, without parts of the types that it is a part of."""
    options: Any = descriptor.GetOptions()
    subject = options.Extensions[privacy_pb2.subject]
    personal = tuple(
        (field.name, _Kind.of(field))
        for field in descriptor.fields
        if subject and is_personal(field) and field.name != SEALED
    )
    seen, parts = {*seen, descriptor.full_name}, []
    for field in descriptor.fields:
        if field.message_type is None or field.message_type.full_name in seen or _is_map(field):
            continue
        if (plan := _build_plan(field.message_type, seen)) is not None:
            parts.append((field.name, bool(field.is_repeated), plan))
    dispensable = bool(options.Extensions[privacy_pb2.dispensable])
    return _Plan(subject, dispensable, personal, tuple(parts)) if subject or parts else None


def _is_map(field: FieldDescriptor) -> bool:
    options: Any = field.message_type.GetOptions() if field.message_type is not None else None
    return bool(options is not None and options.map_entry)
