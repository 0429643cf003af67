"""Durations for people."""


def describe_duration(seconds: float) -> str:
    """Return for instance `0.4 s`, `12 s`, `3 min` or `5 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
