"""The sums of all metrics at one time, in a form that an exporter, a scrape and another process can read."""

from collections.abc import Sequence
from itertools import chain
from operator import add, sub
from typing import Literal

import msgspec

from runtime.process import logs
from runtime.process.logs.repeated_errors import describe_error
from runtime.telemetry.instruments import (
    Counter,
    Distribution,
    Exemplar,
    Gauge,
    Histogram,
    list_instruments,
)

_failures = logs.RepeatedErrors(logs.get_logger(__name__), "Metric not read")


class Buckets(msgspec.Struct, frozen=True, array_like=True):
    """A distribution: the numbers of values up to each bound and above the last, and their sum."""

    counts: tuple[int, ...]
    total: float
    minimum: float | None
    """None if it is not known, as of a difference."""
    maximum: float | None
    exemplars: dict[int, Exemplar] = {}
    """Values that were measured in sampled traces, the latest of each bucket that has one."""

    def __add__(self, other: "Buckets") -> "Buckets":
        return Buckets(
            tuple(map(add, self.counts, other.counts)),
            self.total + other.total,
            min(filter_none(self.minimum, other.minimum), default=None),
            max(filter_none(self.maximum, other.maximum), default=None),
            self.exemplars | other.exemplars,
        )

    def __sub__(self, other: "Buckets") -> "Buckets":
        counts = tuple(map(sub, self.counts, other.counts))
        exemplars = dict(self.exemplars.items() - other.exemplars.items())
        return Buckets(counts, self.total - other.total, None, None, exemplars)


def filter_none(*values: float | None) -> list[float]:
    return [value for value in values if value is not None]


class Point(msgspec.Struct, frozen=True, array_like=True):
    """The value of a metric for one set of attributes: a number, or the buckets of a histogram."""

    attributes: dict[str, str | bool | int]
    number: int | float = 0
    buckets: Buckets | None = None

    @property
    def key(self) -> tuple[tuple[str, str | bool | int], ...]:
        return tuple(self.attributes.items())

    def __add__(self, other: "Point") -> "Point":
        if self.buckets and other.buckets:
            return Point(self.attributes, buckets=self.buckets + other.buckets)
        return Point(self.attributes, self.number + other.number)

    def __sub__(self, other: "Point") -> "Point":
        if self.buckets and other.buckets:
            return Point(self.attributes, buckets=self.buckets - other.buckets)
        return Point(self.attributes, self.number - other.number)


class MetricSnapshot(msgspec.Struct, frozen=True, array_like=True):
    """A metric and its values at one time."""

    name: str
    unit: str
    description: str
    kind: Literal["counter", "gauge", "histogram"]
    points: list[Point]
    bounds: tuple[float, ...] = ()


def take_snapshots() -> list[MetricSnapshot]:
    """Return the metrics of this process that have values; callable in any thread.

    A gauge that cannot be computed is logged and left out.
    """
    snapshots = []
    for instrument in list_instruments():
        try:
            snapshot = _take(instrument)
        except Exception as error:  # of one gauge, which must not hide all other metrics
            _failures.report(f"{instrument.name}: {describe_error(error)}")
            continue
        if snapshot.points:
            snapshots.append(snapshot)
    return snapshots


def _take(instrument: Counter | Histogram | Gauge) -> MetricSnapshot:
    labels, name_values = (instrument.name, instrument.unit, instrument.description), instrument.name_values
    if isinstance(instrument, Histogram):
        distributions = instrument.distributions.copy()
        points = [Point(name_values(key), buckets=_copy(found)) for key, found in distributions.items()]
        return MetricSnapshot(*labels, "histogram", points, instrument.bounds)
    is_counter = isinstance(instrument, Counter)
    values = instrument.sums.copy() if isinstance(instrument, Counter) else instrument.read_values()
    points = [Point(name_values(key), value) for key, value in values.items()]
    return MetricSnapshot(*labels, "counter" if is_counter else "gauge", points)


def _copy(distribution: Distribution) -> Buckets:
    return Buckets(
        tuple(distribution.buckets),
        distribution.total,
        distribution.minimum,
        distribution.maximum,
        distribution.exemplars.copy(),
    )


def merge(snapshots: Sequence[Sequence[MetricSnapshot]]) -> list[MetricSnapshot]:
    """Return the metrics of several processes: counters and histograms summed, all values of gauges."""
    merged: dict[str, MetricSnapshot] = {}
    for metric in chain.from_iterable(snapshots):
        before = merged.get(metric.name)
        if before is None or before.kind == "gauge":
            points = [*(before.points if before else ()), *metric.points]
        else:
            points = _add(before.points, metric.points)
        merged[metric.name] = msgspec.structs.replace(metric, points=points)
    return list(merged.values())


def _add(points: Sequence[Point], others: Sequence[Point]) -> list[Point]:
    sums = {point.key: point for point in points}
    for point in others:
        before = sums.get(point.key)
        sums[point.key] = before + point if before else point
    return list(sums.values())
