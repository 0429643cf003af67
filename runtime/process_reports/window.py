"""The measurements of a process in the last WINDOW seconds, in slices, taken from the sums of its metrics."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime.process_reports.report import WINDOW, Slice
from runtime.telemetry.instruments import Counter, Histogram, Key

SLICE = 10.0
"""Seconds."""

Label = Callable[[Key], str | None]
"""Returns the label under which a measurement is reported; None if it is not."""
Series = tuple[str, str, int]
"""Name, label, and the bucket of a duration, or COUNT."""
COUNT = -1
NOTHING: Mapping[str, Any] = {}


@dataclass(slots=True)
class _OpenSlice:
    began_at: float
    ended_at: float
    sums: dict[Series, int] = field(default_factory=dict)


class Window:
    """The slices of this process.

    Args:
        counts: the reported counters by name, each with its labels.
        durations: the reported histograms by name, each with its labels; their bounds must be SECONDS.
    """

    def __init__(
        self,
        counts: Mapping[str, tuple[Counter, Label]] = NOTHING,
        durations: Mapping[str, tuple[Histogram, Label]] = NOTHING,
    ) -> None:
        self._counts = counts
        self._durations = durations
        self._slices: deque[_OpenSlice] = deque()
        self._last = self._read_sums()

    def advance(self, now: float) -> None:
        """Add the measurements since the last call; `now` is in seconds of a monotonic clock."""
        if not self._slices or now - self._slices[-1].began_at >= SLICE:
            self._slices.append(_OpenSlice(now, now))
        current, sums = self._slices[-1], self._read_sums()
        current.ended_at = now
        for series, total in sums.items():
            if (growth := total - self._last.get(series, 0)) > 0:
                current.sums[series] = current.sums.get(series, 0) + growth
        self._last = sums
        while now - self._slices[0].ended_at >= WINDOW:
            self._slices.popleft()

    def _read_sums(self) -> dict[Series, int]:
        sums: dict[Series, int] = {}
        for name, (counter, get_label) in self._counts.items():
            for key, total in counter.sums.copy().items():
                if (label := get_label(key)) is not None:
                    sums[name, label, COUNT] = sums.get((name, label, COUNT), 0) + total
        for name, (histogram, get_label) in self._durations.items():
            for key, distribution in histogram.distributions.copy().items():
                if (label := get_label(key)) is not None:
                    for bucket, number in enumerate(distribution.buckets):
                        if number:
                            sums[name, label, bucket] = sums.get((name, label, bucket), 0) + number
        return sums

    def list_slices(self, now: float) -> list[Slice]:
        """Return the slices with measurements, the oldest first."""
        return [_to_slice(each, now) for each in self._slices if each.sums]


def _to_slice(open_slice: _OpenSlice, now: float) -> Slice:
    result = Slice(round(now - open_slice.ended_at, 3))
    for (name, label, bucket), number in open_slice.sums.items():
        if bucket == COUNT:
            result.counts.setdefault(name, {})[label] = number
        else:
            result.durations.setdefault(name, {}).setdefault(label, {})[bucket] = number
    return result
