"""Personal fields, by their option `diptych.privacy.v1.personal`, and masks for them. Pure.

How it works. Events and views are messages, whose options say which fields are personal. States of aggregates
are JSON without options: there, a field whose name is that of a personal field of its context is masked, and
so is every text that is neither an id nor reads like a code, a number or a time.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from diptych.privacy.v1 import privacy_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

MASK = "***"
"""Stands for the value of a personal field."""
_ANY = AnyMessage.DESCRIPTOR.full_name
_PLAIN_TEXT = re.compile(r"[A-Z][A-Z0-9_/.]*|-?[0-9]+(\.[0-9]+)?s?|[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.+Z-]+")
"""Codes, numbers, durations and times."""
_ID_NAME = re.compile(r"(^|_)(id|ids|sku)$")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.:/@-]+")
"""Names of fields, and ids."""


def is_personal(field: FieldDescriptor) -> bool:
    options: Any = field.GetOptions()
    return bool(options.Extensions[privacy_pb2.personal])


def mask_personal(message: Message, fields: dict[str, Any]) -> None:
    """Replace the values of a message's personal fields.

    Args:
        message: the message.
        fields: its fields as `MessageToDict` returns them, with the names of the proto.
    """
    if message.DESCRIPTOR.full_name == _ANY:
        _mask_any(message, fields)
    elif _may_hold_personal(message.DESCRIPTOR):
        for field, value in message.ListFields():
            if is_personal(field):
                fields[field.name] = MASK
            elif field.message_type is not None and isinstance(shown := fields.get(field.name), dict | list):
                _mask_parts(field, value, shown)


def _mask_any(message: Any, shown: dict[str, Any]) -> None:
    """Mask what is packed; its fields are shown beside its `@type`."""
    packed = GetMessageClass(Default().FindMessageTypeByName(message.TypeName())).FromString(message.value)
    mask_personal(packed, shown)


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


@cache
def _may_hold_personal(descriptor: Descriptor) -> bool:
    """Return whether a message has a personal field, however deep, or an Any, which may hold one."""
    return any(
        is_personal(field) or (field.message_type is not None and field.message_type.full_name == _ANY)
        for field in _list_fields(descriptor, set())
    )


def _list_fields(descriptor: Descriptor, seen: set[str]) -> Iterator[FieldDescriptor]:
    """Yield the fields of a message and of its parts."""
    seen.add(descriptor.full_name)
    for field in descriptor.fields:
        yield field
        if field.message_type is not None and field.message_type.full_name not in seen:
            yield from _list_fields(field.message_type, seen)


def list_personal_names(descriptors: Iterable[Any]) -> frozenset[str]:
    """Return the names of personal fields in these messages, and of the texts within those fields."""
    return frozenset().union(*map(_find_personal_names, descriptors))


@cache
def _find_personal_names(descriptor: Descriptor) -> frozenset[str]:
    personal = [field for field in _list_fields(descriptor, set()) if is_personal(field)]
    return frozenset().union(*({field.name} | _list_text_names(field) for field in personal))


def _list_text_names(personal: FieldDescriptor) -> set[str]:
    if personal.message_type is None:
        return set()
    texts = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
    fields = _list_fields(personal.message_type, set())
    return {field.name for field in fields if field.type in texts and not _ID_NAME.search(field.name)}


def mask_state(value: Any, names: frozenset[str], name: str = "") -> Any:
    """Return a state, or a part of it, with its structure and without what may be personal.

    Args:
        value: as JSON has it.
        names: of personal fields. `reason` stands for `cancel_reason`, too.
        name: of the field whose value it is.
    """
    if value and is_named_personal(name, names):
        return MASK
    if isinstance(value, dict):
        return {
            _mask_key(key, number): mask_state(part, names, key)
            for number, (key, part) in enumerate(value.items(), 1)
        }
    if isinstance(value, list):
        return [mask_state(part, names, name) for part in value]
    if isinstance(value, str) and value and not may_show_text(name, value):
        return MASK
    return value


def may_show_text(name: str, text: str) -> bool:
    """Return whether the text of a field without options is a code, an id, a number or a time."""
    return bool(_PLAIN_TEXT.fullmatch(text) or _ID_NAME.search(name))


def is_named_personal(name: str, names: frozenset[str]) -> bool:
    """Return whether a field has the name of a personal one, or a name that ends in it."""
    parts = name.split("_")
    return any("_".join(parts[at:]) in names for at in range(len(parts)))


def _mask_key(key: str, number: int) -> str:
    return key if _PLAIN_KEY.fullmatch(key) else f"{MASK} {number}"
