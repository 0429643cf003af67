"""Durations as text: `90s`, `15m`, `1h`, `30d`."""

from datetime import timedelta

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
