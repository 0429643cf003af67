"""Converters between Protobuf messages and frozen dataclasses, field by field of the same name.

How it works. A converter is built once per pair of types, as source code. `decoder` writes an expression
such as

    lambda m: target(order_id=m.order_id, lines=tuple([convert_lines(x) for x in m.lines]), …)

and compiles it with `eval`, as `dataclasses` does with `__init__`, so a call costs no more than hand-written
code. Names in the expression, for instance of nested converters, are in its `scope`. `encoder` writes nested
dicts, from which Protobuf builds nested messages. The fields of both types are compared when the converter is
built, so a mismatch is an error at start.
"""

import types
from collections.abc import Callable, Collection
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from contracts.personal_data import SEALED

UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMESTAMP = "google.protobuf.Timestamp"

Converter = Callable[[Any], Any]


def decoder(
    message: Descriptor, target: type, ignored: Collection[str] = (), defaulted: Collection[str] = ()
) -> Converter:
    """Return a function that converts messages to a dataclass.

    Args:
        message: the message's descriptor.
        target: a dataclass. Its fields may be scalars, datetimes, enums whose values are the message enum's
            numbers, dataclasses, tuples of these, and `X | None` for optional fields.
        ignored: message fields without a counterpart in the dataclass.
        defaulted: dataclass fields without a counterpart in the message; they keep their defaults.

    Raises:
        TypeError: the fields of the message and the dataclass differ.
    """
    scope: dict[str, Any] = {"target": target, "decode_timestamp": decode_timestamp}
    arguments = []
    for name, hint in _match_fields(message, target, ignored, defaulted).items():
        arguments.append(f"{name}=" + _decode_field(message.fields_by_name[name], hint, scope))
    return _compile("lambda m: target(" + ", ".join(arguments) + ")", scope)


def encoder(source: type, message: Descriptor) -> Converter:
    """Return a function that converts the dataclass `source` to messages; the reverse of `decoder`.

    Raises:
        TypeError: the fields of the message and the dataclass differ.
    """
    return _compile(
        f"lambda o: message(**{_encode_message(message, source, 'o')})",
        {"message": GetMessageClass(message), "encode_timestamp": encode_timestamp},
    )


def decode_timestamp(time: Any) -> datetime:
    """Return a Timestamp as a datetime in UTC, in half the time of Protobuf's own conversion."""
    return UNIX_EPOCH + timedelta(0, time.seconds, time.nanos // 1_000)


def encode_timestamp(time: datetime | None) -> dict[str, int] | None:
    """Return a time as the fields of a Timestamp, three times as fast as Protobuf's own conversion."""
    if time is None:
        return None
    since_epoch = time - UNIX_EPOCH
    return {
        "seconds": since_epoch.days * 86_400 + since_epoch.seconds,
        "nanos": since_epoch.microseconds * 1_000,
    }


def _encode_message(message: Descriptor, source: type, value: str) -> str:
    """Return the expression of a dict of a dataclass's fields.

    Protobuf builds nested messages from nested dicts in half the time that it takes to copy messages.
    """
    pairs = [
        f"{name!r}: {_encode_field(message.fields_by_name[name], hint, f'{value}.{name}')}"
        for name, hint in _match_fields(message, source).items()
    ]
    return "{" + ", ".join(pairs) + "}"


def _compile(expression: str, scope: dict[str, Any]) -> Converter:
    return eval(expression, scope)  # type: ignore[no-any-return]  # noqa: S307 - built from descriptors and hints alone


def _match_fields(
    message: Descriptor, dataclass: type, ignored: Collection[str] = (), defaulted: Collection[str] = ()
) -> dict[str, Any]:
    """Return the common fields with the types that the dataclass gives them.

    Raises:
        TypeError: the fields of the message and the dataclass differ.
    """
    hints = get_type_hints(dataclass)
    names = [field.name for field in fields(dataclass) if field.name not in defaulted]
    message_names = set(message.fields_by_name) - set(ignored)
    if SEALED not in names:  # it is filled and opened beside the conversions
        message_names.discard(SEALED)
    if mismatches := message_names.symmetric_difference(names):
        raise TypeError(
            f"{dataclass.__name__} and {message.full_name} differ in: {', '.join(sorted(mismatches))}"
        )
    return {name: hints[name] for name in names}


def _decode_field(field: FieldDescriptor, hint: Any, scope: dict[str, Any]) -> str:
    value, required = f"m.{field.name}", _strip_optional(hint)
    if field.is_repeated:
        (item, *_rest) = get_args(hint)
        if field.message_type is None and not issubclass(item, Enum):
            return f"tuple({value})"
        return f"tuple([{_decode_item(field, item, 'x', scope)} for x in {value}])"
    converted = _decode_item(field, required, value, scope)
    return converted if required is hint else f"{converted} if m.HasField({field.name!r}) else None"


def _decode_item(field: FieldDescriptor, hint: type, value: str, scope: dict[str, Any]) -> str:
    if field.message_type is None:
        return f"{_bind(hint, field, scope)}({value})" if _is_enum(hint) else value
    if field.message_type.full_name == TIMESTAMP and hint is datetime:
        return f"decode_timestamp({value})"
    return f"{_bind(decoder(field.message_type, hint), field, scope)}({value})"


def _encode_field(field: FieldDescriptor, hint: Any, value: str) -> str:
    required = _strip_optional(hint)
    if field.is_repeated:
        (item, *_rest) = get_args(hint)
        each = f"{value.replace('.', '_')}_each"  # unique among the loop variables of nested lists
        converted = _encode_item(field, item, each)
        return value if converted == each else f"[{converted} for {each} in {value}]"
    converted = _encode_item(field, required, value)
    return (
        converted
        if required is hint or converted == value
        else f"{converted} if {value} is not None else None"
    )


def _encode_item(field: FieldDescriptor, hint: type, value: str) -> str:
    if field.message_type is None:
        return f"{value}.value" if _is_enum(hint) else value
    if field.message_type.full_name == TIMESTAMP and hint is datetime:
        return f"encode_timestamp({value})"
    return _encode_message(field.message_type, hint, value)


def _bind(function: Any, field: FieldDescriptor, scope: dict[str, Any]) -> str:
    """Put a function into the scope of the expression and return its name there."""
    name = f"convert_{field.name}"
    scope[name] = function
    return name


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Enum)


def _strip_optional(hint: Any) -> Any:
    """Return X for `X | None`, and any other hint unchanged."""
    if get_origin(hint) in (Union, types.UnionType):
        (required,) = (part for part in get_args(hint) if part is not type(None))
        return required
    return hint


def message_class(descriptor: Descriptor) -> type[Message]:
    return GetMessageClass(descriptor)
