"""Personal fields of messages, by their option `diptych.privacy.v1.personal`. Pure."""

from typing import Any

from diptych.privacy.v1 import privacy_pb2
from google.protobuf.message import Message

MASK = "***"
"""Stands for the value of a personal field."""


def mask_personal(message: Message, fields: dict[str, Any]) -> None:
    """Replace the values of a message's personal fields.

    Args:
        message: the message.
        fields: its fields as `MessageToDict` returns them, with the names of the proto.
    """
    for field, value in message.ListFields():
        options: Any = field.GetOptions()
        if options.Extensions[privacy_pb2.personal]:
            fields[field.name] = MASK
        elif field.message_type is not None and isinstance(shown := fields.get(field.name), dict | list):
            _mask_parts(field, value, shown)


def _mask_parts(field: Any, value: Any, shown: Any) -> None:
    if field.message_type.GetOptions().map_entry:
        if field.message_type.fields_by_name["value"].message_type is not None:
            for key in value:
                name = str(key).lower() if isinstance(key, bool) else str(key)
                _mask_part(value[key], shown.get(name))
    elif field.is_repeated:
        for part, part_shown in zip(value, shown, strict=True):
            _mask_part(part, part_shown)
    else:
        _mask_part(value, shown)


def _mask_part(part: Message, shown: Any) -> None:
    if isinstance(shown, dict):  # a well-known type may be a text
        mask_personal(part, shown)
