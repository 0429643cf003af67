"""Messages as JSON: one object in a line, with the names of the protos.

It differs from protobuf's own mapping where that is a trap for a program such as jq: 64-bit numbers are
numbers, durations are seconds. A field that is unset is null; a list, a text or a number without a value is
there, too.
"""

import json
from datetime import UTC
from math import isfinite
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from operations.rendering.values import to_fields, to_seconds

WELL_KNOWN = {
    "google.protobuf.Timestamp": lambda value: value.ToDatetime(UTC).isoformat().replace("+00:00", "Z"),
    "google.protobuf.Duration": to_seconds,
    "google.protobuf.Struct": to_fields,
}


def format_message(message: Message) -> str:
    """Return a message as one line of JSON."""
    return format_object(to_object(message))


def format_object(value: object) -> str:
    """Return an object as one line of JSON; lone surrogates are escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)


def to_object(message: Any) -> Any:
    """Return a message as an object of JSON."""
    if convert := WELL_KNOWN.get(message.DESCRIPTOR.full_name):
        return convert(message)
    return {field.name: _convert_field(message, field) for field in message.DESCRIPTOR.fields}


def _convert_field(message: Any, field: Any) -> Any:
    if _can_be_unset(field) and not message.HasField(field.name):
        return None
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        content = field.message_type.fields_by_name["value"]
        return {str(key): _convert(value[key], content) for key in value}
    if field.is_repeated:
        return [_convert(item, field) for item in value]
    return _convert(value, field)


def _can_be_unset(field: Any) -> bool:
    """Return whether a field without a value differs from one with the value 0 or an empty text."""
    is_single_message = field.message_type is not None and not field.is_repeated
    return is_single_message or field.containing_oneof is not None


def _convert(value: Any, field: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return to_object(value)
    if field.type == FieldDescriptor.TYPE_ENUM:
        number = field.enum_type.values_by_number.get(value)
        return number.name if number is not None else value
    if field.type == FieldDescriptor.TYPE_BYTES:
        return value.hex()
    return str(value) if isinstance(value, float) and not isfinite(value) else value
