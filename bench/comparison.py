"""How anything is measured: contestants take turns, round after round, and so all meet the same machine."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

Run = Callable[[], Awaitable["Sample"]]


class Void(Exception):
    """A run proves nothing: something was refused, or is not recorded."""


@dataclass(frozen=True)
class Sample:
    """What one turn of one contestant came to."""

    rate: float
    """Operations a second."""
    latency: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds by percentile (`50`, `99`), where single operations were timed."""
    cpu: Mapping[str, float] = field(default_factory=dict)
    """Microseconds of CPU an operation, by process."""
    lags: Sequence[float] = ()
    """Milliseconds of every single operation, where each is of interest."""


@dataclass(frozen=True)
class Contestant:
    """Something that can be run again and again."""

    name: str
    run: Run


def percentile(which: str) -> Callable[[Sample], float | None]:
    """Return what reads a percentile of a sample's latency."""
    return lambda sample: sample.latency.get(which)


Results = dict[str, list[Sample]]
"""The samples of each contestant, one a round."""


async def interleave(contestants: Sequence[Contestant], rounds: int, warm_up: int = 1) -> Results:
    """Let contestants take turns after some rounds that do not count."""
    results: Results = {contestant.name: [] for contestant in contestants}
    for number in range(1 - warm_up, rounds + 1):
        print(f"  round {number} of {rounds}" if number > 0 else "  warming up", flush=True)
        for contestant in contestants:
            sample = await contestant.run()
            if number > 0:
                results[contestant.name].append(sample)
    return results


@dataclass(frozen=True)
class Comparison:
    """A measure of the table: how a contestant does beside another one of the same run."""

    name: str
    against: str
    must: float | None = None
    """The ratio that it has to reach; None where it is only reported."""
    moonshot: float | None = None
    by: Callable[[Sample], float | None] = lambda sample: sample.rate
    what: str = "rate"
    factor: float = 1.0
    """How many things one operation does, where the ratio counts those."""
    at_most: bool = False
    """Whether less is better, as of latencies."""

    def ratios(self, results: Mapping[str, Sequence[Sample]]) -> list[float]:
        """Return the ratio of each round; empty where one of the two was not measured."""
        ours, theirs = results.get(self.name, ()), results.get(self.against, ())
        pairs = [(self.by(a), self.by(b)) for a, b in zip(ours, theirs, strict=False)]
        return [self.factor * a / b for a, b in pairs if a is not None and b]

    def verdict(self, ratio: float) -> str:
        """Return what the table says of a ratio."""
        if self.must is None:
            return "reported"
        reached = ratio <= self.must if self.at_most else ratio >= self.must
        return "reached" if reached else "falls short"


def middle(values: Sequence[float]) -> float:
    """Return the median."""
    return median(values)
