"""The kinds of metrics, and the registry of all metrics that a process has declared.

How it works. Each process declares its metrics in a module `metrics.py` of its own: a table of names,
units and attributes. `runtime.telemetry.metrics` has those of all processes. To measure is to change a
sum in memory, whether or not it is exported; `runtime.telemetry.export` reads the sums. The SDK does not
keep them: one of its instruments takes ten microseconds for each of the three measurements of a command,
a twentieth of the command's time.

A gauge's value can be computed when it is read (`Gauge.observe`). The reader is the exporter's thread, so
such a value is true even while the event loop stands still.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from math import inf
from time import time_ns
from typing import NamedTuple

from runtime.telemetry import trace_context

Value = str | bool | int | None
"""The value of an attribute. None: a measurement lacks this attribute."""
Key = tuple[Value, ...]
"""The values of a measurement's attributes, in the order in which the instrument names them."""

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets of durations. The semantic conventions advise bounds from 5 ms on, but most
calls here take less."""
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)
"""Upper bounds of the buckets of sizes of batches."""

_keeps_exemplars = False
_registry: dict[str, "Counter | Histogram | Gauge"] = {}


def list_instruments() -> "Sequence[Counter | Histogram | Gauge]":
    """Return all metrics that the modules of this process have declared."""
    return list(_registry.values())


def keep_exemplars(kept: bool) -> None:
    """Choose whether histograms keep exemplars: values that were measured in sampled traces."""
    global _keeps_exemplars
    _keeps_exemplars = kept


class Instrument:
    """A metric's name, unit and attributes. Every name is declared once.

    Args:
        name: `diptych.` and a name, except for names that others have defined.
        unit: in UCUM's notation, for instance `s` or `{event}`.
        description: one line, which is also the metric's line in docs/operations.md.
        attributes: the names of the attributes, which every measurement gives a value.
    """

    __slots__ = ("attributes", "description", "name", "unit")

    def __init__(self, name: str, unit: str, description: str, *attributes: str) -> None:
        if name in _registry:
            raise ValueError(f"{name}: this metric is declared twice")
        self.name, self.unit, self.description, self.attributes = name, unit, description, attributes

    def name_values(self, key: Key) -> dict[str, str | bool | int]:
        """Return the attributes of a measurement by name."""
        named = zip(self.attributes, key, strict=True)
        return {name: value for name, value in named if value is not None}


class Counter(Instrument):
    """Sums that only grow, by key."""

    __slots__ = ("sums",)

    def __init__(self, name: str, unit: str, description: str, *attributes: str) -> None:
        super().__init__(name, unit, description, *attributes)
        self.sums: dict[Key, int] = {}
        self.clear()
        _registry[name] = self

    def count(self, *key: Value) -> None:
        self.sums[key] = self.sums.get(key, 0) + 1

    def add(self, amount: int, *key: Value) -> None:
        self.sums[key] = self.sums.get(key, 0) + amount

    def clear(self) -> None:
        """Forget all measurements. A counter without attributes begins at 0, so that its first one shows."""
        self.sums.clear()
        if not self.attributes:
            self.sums[()] = 0


class Exemplar(NamedTuple):
    """A measured value, and the sampled trace in which it was measured."""

    value: float
    traceparent: str
    time_ns: int
    """In nanoseconds since 1970."""


class Distribution:
    """The numbers of measured values between the bounds of the buckets."""

    __slots__ = ("buckets", "exemplars", "maximum", "minimum", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.buckets = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.minimum = inf
        self.maximum = -inf
        self.exemplars: dict[int, Exemplar] = {}
        """The latest exemplar of each bucket that has one."""


class Histogram(Instrument):
    """Distributions of values, by key."""

    __slots__ = ("bounds", "distributions")

    def __init__(
        self, name: str, unit: str, description: str, *attributes: str, bounds: Sequence[float] = SECONDS
    ) -> None:
        super().__init__(name, unit, description, *attributes)
        self.bounds = tuple(bounds)
        self.distributions: dict[Key, Distribution] = {}
        _registry[name] = self

    def record(self, value: float, *key: Value) -> None:
        distribution = self.distributions.get(key)
        if distribution is None:
            distribution = self.distributions[key] = Distribution(self.bounds)
        bucket = bisect_left(self.bounds, value)
        distribution.buckets[bucket] += 1
        distribution.total += value
        if value < distribution.minimum:
            distribution.minimum = value
        if value > distribution.maximum:
            distribution.maximum = value
        if _keeps_exemplars:
            traceparent = trace_context.get_current()
            if traceparent is not None and trace_context.is_sampled(traceparent):
                distribution.exemplars[bucket] = Exemplar(value, traceparent, time_ns())

    def record_traced(self, traceparent: str | None, value: float, *key: Value) -> None:
        """Record a value that was measured in another trace than the current one."""
        if not _keeps_exemplars:
            return self.record(value, *key)
        token = trace_context.set_current(traceparent)
        try:
            return self.record(value, *key)
        finally:
            trace_context.reset(token)

    def clear(self) -> None:
        """Forget all measurements."""
        self.distributions.clear()


Read = Callable[[], float | Mapping[Key, float] | None]
"""Computes the value of a gauge: None if there is none now, or several by key. It may run in any thread."""


class Gauge(Instrument):
    """Values that replace each other, by key: set, or computed by each reading."""

    __slots__ = ("_reads", "_values")

    def __init__(self, name: str, unit: str, description: str, *attributes: str) -> None:
        super().__init__(name, unit, description, *attributes)
        self._values: dict[Key, float] = {}
        self._reads: list[Read] = []
        _registry[name] = self

    def set(self, value: float, *key: Value) -> None:
        self._values[key] = value

    def unset(self, *key: Value) -> None:
        """Forget a value that nobody knows any more."""
        self._values.pop(key, None)

    def observe(self, read: Read) -> None:
        """Compute values by a function from now on, beside those that others set or compute."""
        self._reads.append(read)

    def read_values(self) -> dict[Key, float]:
        """Return the current values. One that cannot be computed now is left out."""
        values = self._values.copy()
        for read in self._reads:
            try:
                value = read()
            except RuntimeError:  # the loop has changed a collection while this thread was reading it
                continue
            if isinstance(value, Mapping):
                values |= value
            elif value is not None:
                values[()] = value
        return values

    def clear(self) -> None:
        """Forget all values and how they are computed."""
        self._values.clear()
        self._reads.clear()


def clear_all() -> None:
    """Forget all measurements; for tests, which share the process."""
    for instrument in list_instruments():
        instrument.clear()
