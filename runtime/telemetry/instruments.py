"""The metrics of this system: every name, unit and attribute in one place, and their sums.

The sums are our own: an instrument of the SDK takes ten microseconds for each of the three measurements of
a command, a twentieth of the command's time. What it makes of them and how they travel is the SDK's
(`runtime.telemetry.export`).
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The buckets' upper bounds in seconds. Finer at the bottom than the semantic conventions' advice, which
begins at 5 ms: most calls here take less."""

Attributes = Mapping[str, str | bool]


@dataclass(slots=True)
class Spread:
    """How some durations are spread."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0
    least: float = inf
    most: float = -inf


@dataclass(frozen=True, slots=True)
class Instrument:
    """What all measurements of one name have in common."""

    name: str
    unit: str
    description: str
    attributes: Callable[..., Attributes] = dict
    """Takes a measurement's key and returns its attributes."""


@dataclass(frozen=True, slots=True)
class Counter(Instrument):
    """Sums that only grow, by key."""

    sums: dict[tuple[str | bool, ...], int] = field(default_factory=dict)

    def count(self, *key: str | bool) -> None:
        """Count one more."""
        self.sums[key] = self.sums.get(key, 0) + 1


@dataclass(frozen=True, slots=True)
class Durations(Instrument):
    """How durations are spread, by key."""

    spreads: dict[tuple[str | bool, ...], Spread] = field(default_factory=dict)

    def record(self, seconds: float, *key: str | bool) -> None:
        """Take one in."""
        spread = self.spreads.get(key)
        if spread is None:
            spread = self.spreads[key] = Spread()
        spread.buckets[bisect_left(BOUNDS, seconds)] += 1
        spread.total += seconds
        if seconds < spread.least:
            spread.least = seconds
        if seconds > spread.most:
            spread.most = seconds


@dataclass(slots=True)
class Level:
    """A number as it is now; None before it is known."""

    name: str
    unit: str
    description: str
    value: int | None = None


class Instruments:
    """One method per thing that is measured. Durations are in seconds."""

    def __init__(self) -> None:
        self._commands = Counter(
            "commands.processed",
            "{command}",
            "Commands that were answered",
            lambda command_type, success: {"command_type": command_type, "success": success},
        )
        self._durations = Durations(
            "commands.duration",
            "s",
            "From a command's arrival to its answer",
            lambda command_type: {"command_type": command_type},
        )
        self._events = Counter(
            "events.processed",
            "{event}",
            "Events that projections have heard",
            lambda event_type, success: {"event_type": event_type, "success": success},
        )
        self._lag = Durations(
            "read_model.lag",
            "s",
            "From an event's recording to its effect in a view",
            lambda model_type: {"model_type": model_type},
        )
        self._pending = Level("outbox.pending", "{event}", "Events that wait for being published")
        self._calls = Durations(
            "rpc.server.call.duration", "s", "From a gRPC call's arrival to its answer", _of_call
        )

    @property
    def all(self) -> Sequence[Counter | Durations | Level]:
        """Every instrument, with what was measured so far."""
        return (self._commands, self._durations, self._events, self._lag, self._pending, self._calls)

    def command_processed(self, command_type: str, success: bool, seconds: float) -> None:
        """Count a command and the time that it took."""
        self._commands.count(command_type, success)
        self._durations.record(seconds, command_type)

    def event_processed(self, event_type: str, success: bool) -> None:
        """Count an event."""
        self._events.count(event_type, success)

    def read_model_lag(self, model_type: str, seconds: float) -> None:
        """Record how long an event took to a view."""
        self._lag.record(seconds, model_type)

    def outbox_pending(self, events: int) -> None:
        """Record how many events wait in the outbox."""
        self._pending.value = events

    def call_answered(self, method: str, status: str, seconds: float) -> None:
        """Record a gRPC call, by its full method name and the name of its status."""
        self._calls.record(seconds, method, status)


def _of_call(method: str, status: str) -> Attributes:
    attributes = {"rpc.system.name": "grpc", "rpc.method": method, "rpc.response.status_code": status}
    return attributes if status == "OK" else {**attributes, "error.type": status}
