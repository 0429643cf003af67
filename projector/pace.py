"""The pace of a build: a limit to its rate, and pauses."""

from time import monotonic

from contracts.generations import GenerationRecord

CHECK_INTERVAL = 0.25
"""Seconds between two looks at a pace that an operator may have changed."""
MIN_RATE = 1e-6
"""Events a second of one process: a lower rate is as good as a pause."""


class Pace:
    """The pace of the builds of one generation in this process.

    A rate is that of all projectors: each takes its share by its partitions. A build also pauses while
    `lacks_memory` is set.
    """

    def __init__(self) -> None:
        self._rate: float | None = None
        self._paused = False
        self.lacks_memory = False
        self._due = 0.0
        """When the events that were applied are due at this rate."""

    def set(self, record: GenerationRecord | None) -> None:
        """Take over what an operator has set; None for no limit."""
        rate = record.rate if record else None
        if rate != self._rate:
            self._rate, self._due = rate, 0.0
        self._paused = bool(record and record.paused)

    def compute_rest(self, applied: int, share: float) -> float:
        """Return the seconds to rest now, at most CHECK_INTERVAL; ask again after them with 0.

        Args:
            applied: the events applied since the last call.
            share: of all partitions, those of this process, above 0 to 1.
        """
        now = monotonic()
        if self._rate is not None:
            self._due = max(self._due, now) + applied / max(self._rate * share, MIN_RATE)
        if self._paused or self.lacks_memory:
            return CHECK_INTERVAL
        return min(CHECK_INTERVAL, max(0.0, self._due - now)) if self._rate is not None else 0.0
