"""Names and times as operators write them."""

from datetime import UTC, datetime


def shorten_name(full_name: str) -> str:
    """Return the last part of a name: of `diptych.ordering.v1.CancelOrder`, `CancelOrder`."""
    return full_name.rpartition(".")[2]


def format_time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
