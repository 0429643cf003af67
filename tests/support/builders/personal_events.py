"""Events whose personal fields hold a name that is to be masked."""

from datetime import UTC, datetime
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from contracts.envelope import RecordedEvent
from contracts.personal_fields import is_personal

NAME = "Ada Lovelace"


def make_event(kind: type[Message], version: int = 1) -> RecordedEvent:
    """Return an event of a kind of message, with NAME in all texts of its personal fields."""
    message = kind()
    _fill(message, is_within=False)
    name, time = message.DESCRIPTOR.full_name, datetime(2026, 1, 1, tzinfo=UTC)
    return RecordedEvent("a.b.c", version, name, message.SerializeToString(), time, version, {})


def has_personal_fields(kind: type[Message]) -> bool:
    return NAME.encode() in make_event(kind).data


def _fill(message: Any, *, is_within: bool) -> None:
    for field in message.DESCRIPTOR.fields:
        is_filled = is_within or is_personal(field)
        part = field.message_type
        if part is not None and part.file.package != "google.protobuf":
            value = getattr(message, field.name)
            _fill(value.add() if field.is_repeated else value, is_within=is_filled)
        elif is_filled and field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            value = NAME if field.type == FieldDescriptor.TYPE_STRING else NAME.encode()
            if field.is_repeated:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)
