"""Due timers that are not read for a while, and those that a lock has kept from firing."""

import asyncio
from collections.abc import Callable, Collection
from time import monotonic

from process_manager.postgres.due_work import DueTimer

REST = 0.25
"""Seconds for which a timer is not read again that an outage or a failure kept from firing."""
MAX_REST = 2.0
"""Seconds, at most, while its rows stay locked: each rest is twice as long as the last one."""
FORGET_AFTER = 60.0
"""Seconds after which a locked timer is forgotten that was not seen again: it is gone, or its lease moved."""


class TimerRests:
    """The rests of the timers of one process.

    Args:
        on_end: called when rests end.
    """

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._on_end = on_end
        self.resting: set[DueTimer] = set()
        self._lengths: dict[DueTimer, tuple[float, float]] = {}
        """Of timers that met a lock: when the last rest began, and its seconds; the oldest first."""

    @property
    def locked(self) -> Collection[DueTimer]:
        """The timers that met a lock when they were last tried."""
        return self._lengths.keys()

    def begin(self, *timers: DueTimer) -> None:
        self._begin(timers, REST)

    def begin_after_lock(self, *timers: DueTimer) -> None:
        """Begin rests that grow as long as the rows of their timers stay locked."""
        now = monotonic()
        for timer in timers:
            _, last = self._lengths.pop(timer, (now, REST / 2))
            length = min(2 * last, MAX_REST)
            self._lengths[timer] = now, length
            self._begin([timer], length)
        while self._lengths and now - next(iter(self._lengths.values()))[0] > FORGET_AFTER:
            del self._lengths[next(iter(self._lengths))]

    def forget(self, timer: DueTimer) -> None:
        """Forget the locks that a timer met: it has fired."""
        self._lengths.pop(timer, None)

    def _begin(self, timers: Collection[DueTimer], length: float) -> None:
        if timers:
            self.resting.update(timers)
            asyncio.get_running_loop().call_later(length, self._end, timers)

    def _end(self, timers: Collection[DueTimer]) -> None:
        self.resting.difference_update(timers)
        self._on_end()
