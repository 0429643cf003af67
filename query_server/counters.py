"""Counters as Redis returns them: a flat reply of names and integer sums."""

from collections.abc import Sequence


def parse_counters(reply: Sequence[bytes]) -> dict[str, int]:
    """Return the counters in a reply to HGETALL, by name."""
    return {name.decode(): int(value) for name, value in zip(reply[::2], reply[1::2], strict=True)}
