"""Readable columns of a view's hash, for people with redis-cli. No program reads them."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from google.protobuf.message import Message

Column = tuple[str, str]
"""The name of a field, and its text."""
ReadColumns = Callable[[Message], tuple[Column, ...]]

RESERVED = frozenset(
    {
        "data",
        "version",
        "revision",
        "entries",
        "contributions",
        "counted",
        "parked",
        "owner",
        "archived",
        "history_from",
    }
)
"""The hash's own fields (contracts/view_layout.py), which a column of that name would overwrite."""


def create_column_reader(message: type[Message], names: Sequence[str]) -> ReadColumns:
    """Return a function that returns these fields of a view as text.

    Raises:
        ValueError: a name is reserved, is not a field of the message, or is a field without a one-line text.
    """
    fields = message.DESCRIPTOR.fields_by_name
    for name in names:
        if name in RESERVED or name not in fields or fields[name].is_repeated:
            raise ValueError(f"{name} of {message.DESCRIPTOR.full_name} cannot be a column")
    formatters = [(name, _select_formatter(fields[name])) for name in names]
    return lambda view: tuple(
        [(name, format_value(getattr(view, name))) for name, format_value in formatters]
    )


def _select_formatter(field: Any) -> Callable[[Any], str]:
    if enum := field.enum_type:
        names = {number: value.name for number, value in enum.values_by_number.items()}
        return lambda number: names.get(number, str(number))
    if field.message_type is None:
        return str
    match field.message_type.full_name:
        case "google.type.Money":
            return _format_money
        case "google.protobuf.Timestamp":
            return _format_timestamp
        case other:
            raise ValueError(f"a {other} cannot be a column")


def _format_money(money: Any) -> str:
    currency, units, nanos = money.currency_code, money.units, money.nanos
    if not currency:
        return ""
    fraction = f"{abs(nanos):09d}".rstrip("0").ljust(2, "0") if nanos else "00"
    sign = "-" if units < 0 or nanos < 0 else ""
    return f"{sign}{abs(units)}.{fraction} {currency}"


def _format_timestamp(timestamp: Any) -> str:
    """Return ISO 8601 text in UTC, truncated to the second."""
    seconds = timestamp.seconds
    return _format_second(seconds) if seconds or timestamp.nanos else ""


@lru_cache(1024)  # views that change together often show the same second
def _format_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
