"""Variants of a valid request, built from its descriptor, for tests of rules.

In each variant one field has another value: unset, empty, odd, extreme, or at either side of the bound that
the proto sets, which bisection finds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from protovalidate import Validator, Violation

from diptych_testing.scenario import NOW
from runtime.codec import TIMESTAMP, message_class

Accepts = Callable[[Any], bool]
TEXTS = (
    "a",
    str(UUID(int=1)),
    "EUR",
    "DE",
    "2026-01",
    "2026-01-31",
    "",
    " ",
    "a b",
    "ä",
    "a\n",
    "a\0",
    "-",
    "ab1",
    "A" * 64,
)
LONGEST = 70_000
"""Characters up to which the bound of a string is sought; lists have up to LARGEST items."""
LARGEST = 300
TYPICAL = {"currency_code": "EUR", "region_code": "DE"}
"""Values of fields that no rule of their own message describes."""
_RANGES = {FieldDescriptor.TYPE_INT32: 2**31, FieldDescriptor.TYPE_INT64: 2**63}
violations_of = Validator().collect_violations


def name_field(violation: Violation) -> str:
    """Return the path of the violated field, without indexes."""
    path = violation.proto.field
    return "" if path is None else ".".join(element.field_name or "" for element in path.elements)


def build_valid(descriptor: Descriptor, examples: Mapping[str, Any]) -> Any:
    """Return a valid message with all fields set, but no expected version, since no stream has events."""
    message: Any = message_class(descriptor)()
    for field in _list_fields(descriptor):
        for value in _list_candidates(field, examples):
            changed = _with_value(message, field, [value] if field.is_repeated else value)
            if field.name not in {name_field(each).partition(".")[0] for each in violations_of(changed)}:
                message = changed
                break
        else:
            raise AssertionError(f"{field.full_name}: name a valid value in `examples`")
    return message


def _list_candidates(field: FieldDescriptor, examples: Mapping[str, Any]) -> Sequence[Any]:
    example = examples.get(field.name)
    if example is not None and (field.type == field.TYPE_STRING or not isinstance(example, str)):
        return [example]
    if field.message_type is not None:
        if field.message_type.full_name == TIMESTAMP:
            return [_timestamp(NOW + timedelta(hours=1))]
        return [build_valid(field.message_type, examples)]
    return TEXTS if field.type == field.TYPE_STRING else (1, 0, 10, 100)


def _timestamp(time: Any) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp


def vary(message: Any, accepts: Accepts) -> Iterator[tuple[str, Any]]:
    """Yield the path of a field and a copy of the message in which this field differs."""
    for field in _list_fields(message.DESCRIPTOR):
        if field.name == "request_id":
            continue

        def put(value: Any, field: FieldDescriptor = field) -> Any:
            return _with_value(message, field, value)

        if field.is_repeated or field.message_type is None or not accepts(put(_make_empty(field))):
            yield field.name, put(None)  # of a message that may be empty a command shows no difference
        if field.is_repeated:
            yield from _vary_list(message, field, put, accepts)
            continue
        for path, value in _vary_value(field, getattr(message, field.name), lambda v: accepts(put(v))):
            yield field.name + path, put(value)


def _vary_list(
    message: Any, field: FieldDescriptor, put: Callable[[Any], Any], accepts: Accepts
) -> Iterator[tuple[str, Any]]:
    (item,) = getattr(message, field.name)
    most = _bisect(1, LARGEST, lambda size: accepts(put([item] * size)))
    for size in (most, most + 1):
        yield field.name, put([item] * size)
    for path, value in _vary_value(field, item, lambda value: accepts(put([value]))):
        yield f"{field.name}[0]{path}", put([value])


def _vary_value(field: FieldDescriptor, value: Any, accepts: Accepts) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Message):
        for path, changed in vary(value, accepts):
            if _get_message_type(field).full_name != TIMESTAMP:
                yield f".{path}", changed
        return
    values: list[Any] = []
    if field.type == field.TYPE_STRING:
        values = list(TEXTS)
        for letter in ("x", "ä"):
            if accepts(letter):
                most = _bisect(1, LONGEST, lambda size: accepts(letter * size))  # noqa: B023
                values += [letter * most, letter * (most + 1)]
    elif (bound := _RANGES.get(field.type)) is not None:
        highest = _bisect(value, bound - 1, accepts)
        lowest = -_bisect(-value, bound, lambda number: accepts(-number))
        numbers = (0, -1, 1, lowest, lowest - 1, highest, highest + 1, -bound, bound - 1)
        values = [number for number in numbers if -bound <= number < bound]
    yield from (("", changed) for changed in values)


def _bisect(valid: int, limit: int, accepts: Callable[[int], bool]) -> int:
    """Return the highest number from `valid` to `limit` that is accepted, if all below it are."""
    if accepts(limit):
        return limit
    while limit - valid > 1:
        middle = (valid + limit) // 2
        valid, limit = (middle, limit) if accepts(middle) else (valid, middle)
    return valid


def _with_value(message: Any, field: FieldDescriptor, value: Any) -> Any:
    """Return a copy of a message with another value of a field, or without it if the value is None."""
    copy = type(message)()
    copy.CopyFrom(message)
    copy.ClearField(field.name)
    if field.is_repeated:
        getattr(copy, field.name).extend(value or ())
    elif isinstance(value, Message):
        getattr(copy, field.name).CopyFrom(value)
    elif value is not None:
        setattr(copy, field.name, value)
    return copy


def _make_empty(field: FieldDescriptor) -> Message:
    return message_class(_get_message_type(field))()


def _get_message_type(field: FieldDescriptor) -> Descriptor:
    assert field.message_type is not None
    return field.message_type


def _list_fields(descriptor: Descriptor) -> list[FieldDescriptor]:
    return [field for field in descriptor.fields if field.name != "expected_version"]
