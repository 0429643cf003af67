"""The times up to which a session's partitions include all committed events. Pure.

How it works. A target is a moment and the sequence of the stream that a partition has to reach: the stream
was complete, and everything that had been committed at that moment was in it up to that sequence. So a
partition that includes all events up to that sequence, or a later one, includes all that were committed
before the moment. Several targets are kept, because a projector that is behind reaches older ones first.
"""

from collections.abc import Mapping

UNKNOWN = 0
"""The time of a partition that has caught up with the stream while no relay confirmed the stream."""
MAX_TARGETS = 120
"""Targets that are kept; beyond that every second one is dropped."""


class CatchUp:
    """The targets of a session."""

    def __init__(self) -> None:
        self._targets: list[tuple[int, int]] = []
        """Sequence and time in milliseconds since 1970, both rising."""

    def add_target(self, sequence: int, time: int) -> None:
        """Add a target: all events committed before `time` are in the stream up to `sequence`."""
        if self._targets:
            last_sequence, last_time = self._targets[-1]
            sequence, time = max(sequence, last_sequence), max(time, last_time)
            if sequence == last_sequence:
                self._targets.pop()
            elif time == last_time:
                return
        self._targets.append((sequence, time))
        if len(self._targets) > MAX_TARGETS:
            self._targets = [*self._targets[:-1:2], self._targets[-1]]

    def reach(self, sequences: Mapping[int, int]) -> dict[int, int]:
        """Return the times of the partitions that have reached a target by these sequences."""
        times = {}
        for partition, sequence in sequences.items():
            reached = [time for target, time in self._targets if target <= sequence]
            if reached:
                times[partition] = reached[-1]
        return times
