"""How a view's fields stand in its hash for people who look with redis-cli; no program reads them."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message

Columns = Callable[[Message], Mapping[str, str]]

RESERVED = frozenset({"data", "version", "revision", "entries", "amounts", "added", "parked"})
"""The hash's own fields (contracts/view_layout.py); a column of that name would overwrite one."""


def reader(message: type[Message], names: Sequence[str]) -> Columns:
    """Return the function that reads these fields of a view as text.

    Raises:
        ValueError: a name is no field of the message, is reserved, or is a field that no line can show.
    """
    fields = message.DESCRIPTOR.fields_by_name
    for name in names:
        if name in RESERVED or name not in fields or fields[name].is_repeated:
            raise ValueError(f"{name} of {message.DESCRIPTOR.full_name} cannot be a column")
    shows = [(name, _text(fields[name])) for name in names]
    return lambda view: {name: text(getattr(view, name)) for name, text in shows}


def _text(field: Any) -> Callable[[Any], str]:
    if enum := field.enum_type:
        names = {number: value.name for number, value in enum.values_by_number.items()}
        return lambda number: names.get(number, str(number))
    if field.message_type is None:
        return str
    match field.message_type.full_name:
        case "google.type.Money":
            return _money
        case "google.protobuf.Timestamp":
            return _timestamp
        case other:
            raise ValueError(f"a {other} cannot be a column")


def _money(money: Any) -> str:
    if not money.currency_code:
        return ""
    fraction = f"{abs(money.nanos):09d}".rstrip("0").ljust(2, "0")
    sign = "-" if money.units < 0 or money.nanos < 0 else ""
    return f"{sign}{abs(money.units)}.{fraction} {money.currency_code}"


def _timestamp(timestamp: Any) -> str:
    """Return it to the second."""
    return datetime.fromtimestamp(timestamp.seconds, UTC).isoformat() if timestamp.ByteSize() else ""
