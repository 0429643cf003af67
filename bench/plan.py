"""How much is measured: the complete bench, or a quick one with the same rows."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Numbers and durations of one bench. The defaults are those of the complete one."""

    name: str = "bench"
    """Of the files with the results."""
    rounds: int = 3
    orders: int = 100_000
    """Orders that exist before servers are measured."""
    backlog: int = 30_000
    """Events that relay and projector process in a run; as many orders exist then."""
    calls: float = 1.0
    """The calls of a run, as a share of those of the complete bench."""
    client_rounds: int = 10
    seconds: float = 4.0
    """Of a run at a fixed rate."""
    overload_seconds: float = 3.0
    """Of a run at a peak, and of one under overload."""
    recovery_seconds: float = 10.0
    """After which a server has to be at its peak again, once the overload has ended."""
    idle_seconds: float = 20.0
    queued_orders: int = 600
    """Orders that wait for the process manager at once."""
    paced_seconds: float = 10.0
    """For which orders arrive at a low rate."""

    @property
    def is_quick(self) -> bool:
        return self.name == QUICK.name

    def scale(self, calls: int) -> int:
        """Return how many calls a run makes, from those of the complete bench."""
        return max(1, int(calls * self.calls))


COMPLETE = Plan()
QUICK = Plan(
    name="bench-quick",
    rounds=1,
    orders=20_000,
    backlog=10_000,
    calls=0.4,
    client_rounds=3,
    seconds=3.0,
    overload_seconds=1.0,
    recovery_seconds=3.0,
    idle_seconds=10.0,
    queued_orders=200,
    paced_seconds=5.0,
)
