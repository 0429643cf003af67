"""Progress of an export: a plain line now and then, with percent, rate and the time that is left."""

from collections.abc import Callable
from time import monotonic

INTERVAL = 2.0
"""Seconds between two lines."""


class Progress:
    """Reports how far an export has come.

    Args:
        first: the position with which it begins.
        report: prints a line.
        now: returns seconds.
    """

    def __init__(
        self, first: int, report: Callable[[str], None], now: Callable[[], float] = monotonic
    ) -> None:
        self._first = first
        self._report = report
        self._now = now
        self._began = self._reported = now()
        self._events = 0

    def note(self, events: int, position: int, until: int) -> None:
        """Count events, and report if the last line is INTERVAL old."""
        self._events += events
        now = self._now()
        if now - self._reported < INTERVAL:
            return
        self._reported = now
        passed, whole = position - self._first + 1, max(1, until - self._first + 1)
        left = (now - self._began) * (whole - passed) / max(1, passed)
        rate = self._events / (now - self._began)
        share = f"{min(100, passed * 100 // whole)} %"
        self._report(f"{share}  position {position:,} of {until:,}  {rate:,.0f} events/s  {left:,.0f} s left")

    def finish(self, position: int) -> None:
        """Report the end."""
        seconds = self._now() - self._began
        self._report(f"{self._events:,} events up to position {position:,} in {seconds:.1f} s")
