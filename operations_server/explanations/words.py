"""The words of explanations, taken from the names in descriptors and recorded data. Pure.

Of the fields of an event, ids, enums, numbers, booleans, money and times are shown with their values. All
others may hold personal data, so they are shown by name only.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.type.money_pb2 import Money

from contracts.money import NANOS, to_nanos
from contracts.personal_fields import is_personal
from operations_server.names import format_time, shorten_name

MAX_VALUE_LENGTH = 100
MAX_SENTENCE_LENGTH = 1_000
MAX_FIELDS = 12
"""Fields of an event that a sentence names; the others are counted."""
MAX_DETAILS = 20
"""Details of a rejection that a sentence names."""

_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_ID_NAME = re.compile(r"(^|_)(id|sku)$")
_TIME_TYPES = {"google.protobuf.Timestamp", "google.protobuf.Duration"}
_MONEY = "google.type.Money"


def name_event(type_name: str) -> str:
    """Return an event's name in words: of `diptych.ordering.v1.OrderCancelled`, `order cancelled`."""
    return _CAPITAL.sub(" ", shorten_name(type_name)).lower()


def name_stream(stream: str) -> str:
    """Return an aggregate's name in words: of `ordering.order.o-1`, `order o-1`."""
    type_name, _, id_ = stream.rpartition(".")
    return f"{type_name.rpartition('.')[2].replace('_', ' ')} {id_}"


def name_sender(subject: str, on_behalf_of: str | None) -> str:
    sender = cut(subject or "somebody unknown", MAX_VALUE_LENGTH)
    return f"{sender} on behalf of {cut(on_behalf_of, MAX_VALUE_LENGTH)}" if on_behalf_of else sender


def cut(text: str, length: int = MAX_SENTENCE_LENGTH) -> str:
    """Return a text that is no longer than this."""
    return text if len(text) <= length else text[: length - 1] + "…"


def describe_rejection(reason: str, details: Mapping[str, Any]) -> str:
    """Return a rejection in words: `FUNDS_INSUFFICIENT (balance 5, needed 10)`."""
    shown = [
        f"{name.replace('_', ' ')} {cut(str(value), MAX_VALUE_LENGTH)}"
        for name, value in list(details.items())[:MAX_DETAILS]
    ]
    return f"{reason} ({', '.join(shown)})" if shown else reason


def describe_event(message: Message, *, aggregate_id: str, recorded_at: datetime) -> str:
    """Return an event's fields in words; empty if nothing is left to say.

    Args:
        message: the event.
        aggregate_id: left out, since the sentence names it.
        recorded_at: left out of the times, for the same reason.
    """
    omitted = {aggregate_id, format_time(recorded_at)}
    with_values, names = list[str](), list[str]()
    for field, value in message.ListFields():
        shown = _show_value(field, value)
        if shown is None:
            names.append(field.name + (f" ({len(value)})" if _is_collection(field) else ""))
        elif shown not in omitted:
            with_values.append(f"{field.name} {shown}")
    parts = [", ".join(_limit(with_values)), ", ".join(_limit(names))]
    return "; also ".join(parts) if all(parts) else "".join(parts)


def _limit(parts: Sequence[str]) -> Iterator[str]:
    yield from parts[:MAX_FIELDS]
    if len(parts) > MAX_FIELDS:
        yield f"{len(parts) - MAX_FIELDS} more"


def _is_collection(field: FieldDescriptor) -> bool:
    return bool(field.is_repeated)


def _show_value(field: FieldDescriptor, value: Any) -> str | None:
    """Return a field's value for people; None if it may hold personal data."""
    if _is_collection(field) or is_personal(field):
        return None
    if field.message_type is not None:
        return _show_message(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return str(known.name) if known else str(value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return None
    if field.type == FieldDescriptor.TYPE_STRING:
        return cut(value, MAX_VALUE_LENGTH) if _ID_NAME.search(field.name) else None
    return str(value).lower() if isinstance(value, bool) else str(value)


def _show_message(value: Any) -> str | None:
    name = value.DESCRIPTOR.full_name
    if name == _MONEY:
        return _show_money(value)
    if name not in _TIME_TYPES:
        return None
    if name == "google.protobuf.Duration":
        return f"{value.seconds + value.nanos / 1e9:g} s"
    try:
        return format_time(value.ToDatetime(UTC))
    except (ValueError, OverflowError):  # a time outside of the calendar
        return f"{value.seconds} s since 1970"


def _show_money(value: Money) -> str:
    nanos = to_nanos(value)
    units, fraction = divmod(abs(nanos), NANOS)
    digits = f"{fraction:09}".rstrip("0").ljust(2, "0")
    return f"{'-' if nanos < 0 else ''}{units}.{digits} {cut(value.currency_code, 3)}".rstrip()
