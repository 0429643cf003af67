"""Progress of long work: plain lines with percent, rate and the time that is left."""

from collections.abc import Callable
from time import monotonic

from operations.rendering.values import format_seconds

INTERVAL = 5.0
"""Seconds between two lines."""

Report = Callable[[int, int], None]
"""Takes the amount that is done and the total, both in the same unit."""


class Progress:
    """Prints how far some work is, at most every INTERVAL seconds, so that short work prints nothing.

    Args:
        noun: the unit, for instance `events`.
        show: prints a line.
        clock: returns the time in seconds.
    """

    def __init__(
        self, noun: str, show: Callable[[str], None], clock: Callable[[], float] = monotonic
    ) -> None:
        self._noun = noun
        self._show = show
        self._clock = clock
        self._began = self._last = clock()
        self._first: int | None = None

    def report(self, done: int, total: int) -> None:
        """Report the amount that is done of the total; the work begins at that of the first call."""
        if self._first is None:
            self._first = done
        if (now := self._clock()) - self._last >= INTERVAL:
            self._last = now
            self._show(self._describe(done, max(done, total), now - self._began))

    def _describe(self, done: int, total: int, seconds: float) -> str:
        rate = (done - (self._first or 0)) / seconds
        left = f"{format_seconds((total - done) / rate)} left" if rate > 0 else "no end in sight"
        percent = 100 * done // total if total else 100
        return f"{percent} %, {done:,} of {total:,} {self._noun}, {rate:,.0f} a second, {left}"
