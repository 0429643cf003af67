"""The time of decisions. It is the store's, so that the clocks of command servers decide nothing.

How it works. Each transaction reads the store's time once, after it has locked the streams. `continue_from`
continues that time on this process's monotonic clock. `choose_time` keeps time from running backwards within
a stream, as long as the stream's last event is at most MAX_LEAD ahead of the store. A later time comes from a
clock that was wrong. It is set aside: otherwise the stream, and each stream that a command changes with it,
would keep that wrong time until the real time has reached it. The event that follows records what was set
aside.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from time import perf_counter
from typing import Protocol

MAX_LEAD = timedelta(seconds=1)
"""Lead over the store's time up to which a decision takes over the time of a stream's last event."""

NOTHING: Mapping[str, datetime] = {}


class Timed(Protocol):
    """A stream, as far as its time matters."""

    updated_at: datetime


def continue_from(now: datetime) -> Callable[[], datetime]:
    """Return a clock that shows `now` at this moment, and then advances with the monotonic clock."""
    start = perf_counter()
    return lambda: now + timedelta(seconds=perf_counter() - start)


def choose_time(now: datetime, streams: Mapping[str, Timed]) -> tuple[datetime, Mapping[str, datetime]]:
    """Return the time of a decision, and the times of the streams that it sets aside, by stream.

    Args:
        now: the store's time.
        streams: the streams of the command.
    """
    latest = max([stream.updated_at for stream in streams.values()])
    if latest <= now:  # nearly always
        return now, NOTHING
    limit = now + MAX_LEAD
    if latest <= limit:
        return latest, NOTHING
    times = {name: stream.updated_at for name, stream in streams.items()}
    ahead = {name: time for name, time in times.items() if time > limit}
    return max([now, *(time for time in times.values() if time <= limit)]), ahead
