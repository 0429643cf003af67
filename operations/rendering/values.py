"""Single values as text: times, ages, numbers and fields of events."""

import json
from datetime import UTC, datetime
from typing import Any

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def format_time(time: datetime) -> str:
    """Return a time in UTC with milliseconds, for instance 2026-01-31T12:00:00.000Z."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_timestamp(timestamp: Any) -> str:
    """Return a protobuf Timestamp as `format_time` does."""
    return format_time(timestamp.ToDatetime(UTC))


def to_seconds(duration: Any) -> float:
    """Return a protobuf Duration in seconds."""
    return float(duration.seconds + duration.nanos / 1e9)


def format_seconds(seconds: float) -> str:
    """Return a time span with its two largest units, for instance 40 ms, 1.5 s, 3 min 5 s or 2 d 4 h."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    rest, parts = round(seconds), []
    for size, unit in _UNITS:
        if rest >= size:
            parts.append(f"{rest // size} {unit}")
            rest %= size
    if rest or not parts:
        parts.append(f"{rest} s")
    return " ".join(parts[:2])


def format_count(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun, for instance 1 event or 1,200 events."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def format_share(share: float) -> str:
    """Return a share as percent, rounded down: 100 % is shown for all alone."""
    return f"{int(share * 100)} %"


def to_fields(data: Any) -> dict[str, Any]:
    """Return the fields of a Struct by name, in order. Whole numbers are integers, which Struct has not."""
    return {name: _to_value(data.fields[name]) for name in sorted(data.fields)}


def _to_value(value: Any) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return to_fields(value.struct_value)
        case "list_value":
            return [_to_value(item) for item in value.list_value.values]
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
    return None


def format_fields(data: Any) -> str:
    """Return the fields of a Struct as JSON in one line."""
    return json.dumps(to_fields(data), ensure_ascii=False)


def get_last_part(name: str) -> str:
    """Return the short name of a message, for instance OrderPlaced of diptych.ordering.v1.OrderPlaced."""
    return name.rpartition(".")[2]
