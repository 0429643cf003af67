"""Retentions as text: a duration such as `30d`, or `unlimited`."""

from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from runtime.process.durations import parse_duration

UNLIMITED = "unlimited"
MIN_RETENTION, MAX_RETENTION = timedelta(hours=1), timedelta(days=36_500)


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
