"""Durations as text: `90s`, `15m`, `1h`, `30d`; for a retention also `unlimited`."""

from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

UNLIMITED = "unlimited"
MIN_RETENTION, MAX_RETENTION = timedelta(hours=1), timedelta(days=36_500)

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_duration(text: str) -> timedelta:
    """Return the duration of a text such as `90s`.

    Raises:
        ValueError: the text is none.
    """
    number, unit = text[:-1], text[-1:]
    try:
        if number.isdecimal() and unit in _SECONDS:
            return timedelta(seconds=int(number) * _SECONDS[unit])
    except (OverflowError, ValueError):
        pass
    raise ValueError(f"{text!r} is not a time like 90s, 15m, 1h or 7d")


def _parse_retention(value: Any) -> timedelta | None:
    if value is None or value == UNLIMITED:
        return None
    retention = value if isinstance(value, timedelta) else parse_duration(str(value))
    if not MIN_RETENTION <= retention <= MAX_RETENTION:
        raise ValueError(f"{value!r} is not between 1h and 36500d; {UNLIMITED!r} is for no limit")
    return retention


def _format_retention(retention: timedelta | None) -> str:
    return UNLIMITED if retention is None else f"{int(retention.total_seconds())}s"


Retention = Annotated[timedelta | None, BeforeValidator(_parse_retention), PlainSerializer(_format_retention)]
"""How long something is kept; None, as text `unlimited`, for no limit."""
