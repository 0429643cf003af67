"""All metrics with their names, units and attributes, and their current sums.

The sums are kept here rather than by the SDK: one of its instruments takes ten microseconds for each of the
three measurements of a command, a twentieth of the command's time. The SDK only exports the sums
(`runtime.telemetry.export`).
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histogram buckets, in seconds. The semantic conventions advise bounds from 5 ms on, but
most calls here take less."""

Attributes = Mapping[str, str | bool]


@dataclass(slots=True)
class Distribution:
    """A histogram of durations in seconds."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0
    minimum: float = inf
    maximum: float = -inf


@dataclass(frozen=True, slots=True)
class Instrument:
    """A metric's name, unit and attributes. Every measurement has a key, which determines its attributes."""

    name: str
    unit: str
    description: str
    attributes: Callable[..., Attributes] = dict
    """Returns the attributes of a key."""


@dataclass(frozen=True, slots=True)
class Counter(Instrument):
    """Monotonic sums, by key."""

    sums: dict[tuple[str | bool, ...], int] = field(default_factory=dict)

    def count(self, *key: str | bool) -> None:
        self.sums[key] = self.sums.get(key, 0) + 1


@dataclass(frozen=True, slots=True)
class Durations(Instrument):
    """Histograms of durations, by key."""

    distributions: dict[tuple[str | bool, ...], Distribution] = field(default_factory=dict)

    def record(self, seconds: float, *key: str | bool) -> None:
        distribution = self.distributions.get(key)
        if distribution is None:
            distribution = self.distributions[key] = Distribution()
        distribution.buckets[bisect_left(BOUNDS, seconds)] += 1
        distribution.total += seconds
        if seconds < distribution.minimum:
            distribution.minimum = seconds
        if seconds > distribution.maximum:
            distribution.maximum = seconds


@dataclass(frozen=True, slots=True)
class LastValues(Instrument):
    """A gauge: the last recorded values, by key."""

    values: dict[tuple[str | bool, ...], int] = field(default_factory=dict)


@dataclass(slots=True)
class LastValue:
    """A gauge: the last recorded value, or None before the first."""

    name: str
    unit: str
    description: str
    value: int | None = None


class Instruments:
    """The metrics, with one method for each kind of measurement. Durations are in seconds."""

    def __init__(self) -> None:
        self._commands = Counter(
            "commands.processed",
            "{command}",
            "Answered commands",
            lambda command_type, success: {"command_type": command_type, "success": success},
        )
        self._durations = Durations(
            "commands.duration",
            "s",
            "Time from a command's arrival to its answer",
            lambda command_type: {"command_type": command_type},
        )
        self._times_set_aside = Counter(
            "streams.time_set_aside",
            "{stream}",
            "Streams whose last event was ahead of the database's clock when the next one was decided",
            lambda stream_type: {"stream_type": stream_type},
        )
        self._folds = LastValue("streams.folds", "{stream}", "Long streams that are being folded")
        self._fold_age = LastValue(
            "streams.folds.age", "s", "Time since the oldest fold of a long stream began"
        )
        self._events = Counter(
            "events.processed",
            "{event}",
            "Events that projections have processed",
            lambda event_type, success: {"event_type": event_type, "success": success},
        )
        self._lag = Durations(
            "read_model.lag",
            "s",
            "Time from an event's commit until a view includes it",
            lambda model_type: {"model_type": model_type},
        )
        self._pending = LastValue("outbox.pending", "{event}", "Unpublished events in the outbox")
        self._redis_memory = LastValue("redis.memory.used", "%", "Used share of Redis's maxmemory")
        self._key_ring = LastValue(
            "key_ring.valid", "1", "1 while the key ring's file can be used, otherwise 0"
        )
        self._silent_targets = LastValues(
            "sagas.step_target.silent",
            "1",
            "Whether a service has stopped answering the steps of sagas: 1 or 0",
            lambda target: {"target": target},
        )
        self._clock_offset = LastValue(
            "clock.offset", "ms", "Lead of this machine's clock over that of PostgreSQL or Redis"
        )
        self._calls = Durations(
            "rpc.server.call.duration", "s", "Time from a gRPC call's arrival to its answer", _call_attributes
        )

    @property
    def all(self) -> Sequence[Counter | Durations | LastValues | LastValue]:
        return (
            self._commands,
            self._durations,
            self._times_set_aside,
            self._folds,
            self._fold_age,
            self._events,
            self._lag,
            self._pending,
            self._redis_memory,
            self._clock_offset,
            self._key_ring,
            self._silent_targets,
            self._calls,
        )

    def command_processed(self, command_type: str, success: bool, seconds: float) -> None:
        self._commands.count(command_type, success)
        self._durations.record(seconds, command_type)

    def stream_time_set_aside(self, stream_type: str) -> None:
        self._times_set_aside.count(stream_type)

    def folds_under_way(self, count: int, age: float) -> None:
        self._folds.value, self._fold_age.value = count, round(age)

    def event_processed(self, event_type: str, success: bool) -> None:
        self._events.count(event_type, success)

    def read_model_lag(self, model_type: str, seconds: float) -> None:
        self._lag.record(seconds, model_type)

    def outbox_pending(self, events: int) -> None:
        self._pending.value = events

    def redis_memory_used(self, percent: int) -> None:
        self._redis_memory.value = percent

    def key_ring_valid(self, valid: bool) -> None:
        self._key_ring.value = int(valid)

    def step_target_silent(self, target: str, silent: bool) -> None:
        self._silent_targets.values[target,] = int(silent)

    def clock_offset(self, seconds: float) -> None:
        self._clock_offset.value = round(seconds * 1000)

    def call_answered(self, method: str, status: str, seconds: float) -> None:
        """Record the duration of a gRPC call.

        Args:
            method: `<package>.<Service>/<Method>`.
            status: the name of the gRPC status.
            seconds: the duration.
        """
        self._calls.record(seconds, method, status)


def _call_attributes(method: str, status: str) -> Attributes:
    attributes = {"rpc.system.name": "grpc", "rpc.method": method, "rpc.response.status_code": status}
    return attributes if status == "OK" else {**attributes, "error.type": status}
