"""How values appear in snapshots (JSON), in the readable columns of a view (text), and in indexes."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from contracts.view_layout import View, index_member


def encode_money(money: Any) -> dict[str, Any]:
    """Return an amount as in a snapshot."""
    return {"currency_code": money.currency_code, "units": money.units, "nanos": money.nanos}


def encode_time(time: Any) -> str:
    """Return a time as in a snapshot."""
    return str(time.ToDatetime(UTC).isoformat().replace("+00:00", "Z"))


def columns(*names: str) -> Callable[[Any], Mapping[str, str]]:
    """Return a function that returns these fields of a view as text."""
    return lambda view: {name: _format_field(view, name) for name in names}


def _format_field(view: Any, name: str) -> str:
    value, enum = getattr(view, name), view.DESCRIPTOR.fields_by_name[name].enum_type
    if enum:
        return str(enum.values_by_number[value].name)
    if isinstance(value, Money):
        return _format_money(value)
    return _format_time(value) if isinstance(value, Timestamp) else str(value)


def _format_money(money: Money) -> str:
    """Return an amount like `-0.50 EUR`; empty without a currency."""
    sign = "-" if (money.units, money.nanos) < (0, 0) else ""
    fraction = f"{abs(money.nanos):09d}".rstrip("0")
    return f"{sign}{abs(money.units)}.{fraction:0<2} {money.currency_code}" if money.currency_code else ""


def _format_time(time: Timestamp) -> str:
    """Return ISO 8601 in UTC, to the second; empty for 1970, which is an unset time."""
    return datetime.fromtimestamp(time.seconds, UTC).isoformat() if time.seconds or time.nanos else ""


def list_entries(view: View, member: str, *indexes: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the entries of one member in indexes, each given by its name and values."""
    return [(view.index(*index), member) for index in indexes]


def has_end_time(view: Any) -> bool:
    return bool(view.HasField("end_time"))


def list_ended(view: View, id_field: str) -> Callable[[Any], list[tuple[str, str]]]:
    """Return a function that returns the entry of a view with an `end_time` in the index `ended`."""

    def list_own(ended: Any) -> list[tuple[str, str]]:
        if not has_end_time(ended):
            return []
        member = index_member(ended.end_time.ToMicroseconds(), getattr(ended, id_field))
        return list_entries(view, member, ("ended",))

    return list_own


def split_money(money: Any) -> Iterable[tuple[str, int]]:
    """Yield the parts of an amount that counters sum, with their names; without those of 0."""
    return [(name, amount) for name, amount in (("units", money.units), ("nanos", money.nanos)) if amount]
