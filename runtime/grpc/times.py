"""Finds the Timestamps and Durations of a request that are none, by the ranges that their protos permit.

A finder is built once per message type, and visits only the fields that lead to a Timestamp or Duration.
"""

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

Find = Callable[[Any, str], Iterator[str]]
"""Yields the path of every invalid time in a message. Takes the message, and its path with a final dot."""

_MIN_SECONDS, _MAX_SECONDS = -62_135_596_800, 253_402_300_799
"""From the year 1 to the year 9999."""
_MAX_DURATION = 315_576_000_000
"""Seconds of 10,000 years."""
_NANOS = 1_000_000_000


def _is_timestamp(time: Timestamp) -> bool:
    return _MIN_SECONDS <= time.seconds <= _MAX_SECONDS and 0 <= time.nanos < _NANOS


def _is_duration(time: Duration) -> bool:
    """Return whether the parts are in their ranges, and have the same sign."""
    return (
        -_MAX_DURATION <= time.seconds <= _MAX_DURATION
        and -_NANOS < time.nanos < _NANOS
        and time.seconds * time.nanos >= 0
    )


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "google.protobuf.Timestamp": _is_timestamp,
    "google.protobuf.Duration": _is_duration,
}


def build_finder(message: Any) -> Find | None:
    """Return the finder of a message type, given its descriptor; None if its messages cannot hold a time."""
    return _build(message, {})


def _build(message: Descriptor, built: dict[str, list[tuple[FieldDescriptor, Any]]]) -> Find | None:
    """Return the finder of a type; `built` has those of the types around it, which may contain themselves."""
    if message.full_name not in built:
        fields = built[message.full_name] = []
        for field in message.fields:
            item = _get_item_type(field)
            if item is None or not _can_hold_time(item, set()):
                continue
            if item.full_name not in _CHECKS:
                _build(item, built)
            fields.append((field, _CHECKS.get(item.full_name) or built[item.full_name]))
    found = built[message.full_name]
    return (lambda value, path: _find(value, path, found)) if found else None


def _can_hold_time(message: Descriptor, visited: set[str]) -> bool:
    """Return whether a type is a time, or has a field that leads to one."""
    if message.full_name in visited:
        return False
    visited.add(message.full_name)
    items = filter(None, map(_get_item_type, message.fields))
    return message.full_name in _CHECKS or any(_can_hold_time(item, visited) for item in items)


def _get_item_type(field: FieldDescriptor) -> Descriptor | None:
    """Return the message type of a field, or of the values of a map."""
    item: Descriptor | None = field.message_type
    if item is not None and item.GetOptions().map_entry:
        item = item.fields_by_name["value"].message_type
    return item


def _find(message: Any, path: str, fields: list[tuple[FieldDescriptor, Any]]) -> Iterator[str]:
    for field, check in fields:
        field_path = f"{path}{field.name}"
        if not field.is_repeated:
            if message.HasField(field.name):
                yield from _check(getattr(message, field.name), field_path, check)
            continue
        items = getattr(message, field.name)
        pairs = items.items() if hasattr(items, "items") else enumerate(items)
        for key, item in pairs:
            yield from _check(item, f"{field_path}[{key}]", check)


def _check(value: Any, path: str, check: Any) -> Iterator[str]:
    if isinstance(check, list):
        yield from _find(value, f"{path}.", check)
    elif not check(value):
        yield path
