"""The time by which the projector judges what it stores in Redis: Redis's time, not this machine's.

Other projectors and the query servers read these times, and each machine's clock may be wrong. The time is
read from Redis once a second, and continues on the monotonic clock in between.
"""

from time import monotonic, time

_lead = time() - monotonic()
"""Lead of Redis's time over the monotonic clock, in seconds; this machine's until the first reading."""


def set_time(now: float) -> None:
    """Set the clock to Redis's time, in seconds since 1970."""
    global _lead
    _lead = now - monotonic()


def read_milliseconds() -> int:
    """Return milliseconds since 1970."""
    return to_milliseconds(monotonic())


def to_milliseconds(moment: float) -> int:
    """Return the milliseconds since 1970 at a moment of the monotonic clock."""
    return int((moment + _lead) * 1000)
