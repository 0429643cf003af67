"""The method of measurement: subjects run in turn, round after round, and are compared within a round.

A machine's speed changes from minute to minute. Subjects that run right after each other meet the same speed,
so the ratio of their samples is stable even where their rates are not.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

Run = Callable[[], Awaitable["Sample"]]


ABSOLUTE = ""
"""Of a comparison without another subject."""


class InvalidRun(Exception):
    """A run proves nothing, for instance because a call failed."""


@dataclass(frozen=True)
class Sample:
    """The result of one run of one subject."""

    rate: float
    """Operations per second."""
    latency: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds by percentile (`50`, `99`); empty if single operations were not timed."""
    cpu: Mapping[str, float] = field(default_factory=dict)
    """Microseconds of CPU time per operation, by process. Negative where a greater cost was subtracted."""
    lags: Sequence[float] = ()
    """Milliseconds of every single operation, for histograms."""
    memory: float | None = None
    """Bytes by which a process has grown, in all or per operation; None if that was not measured."""


@dataclass(frozen=True)
class Subject:
    """A measured operation: its name in the tables, and the function that runs it once."""

    name: str
    run: Run


def select_percentile(name: str) -> Callable[[Sample], float | None]:
    """Return the function that reads a percentile of a sample's latency."""
    return lambda sample: sample.latency.get(name)


def select_cpu(sample: Sample) -> float | None:
    """Return the CPU time of all processes together; None if none was measured."""
    return sum(sample.cpu.values()) if sample.cpu else None


def select_memory(sample: Sample) -> float | None:
    return sample.memory


Results = dict[str, list[Sample]]
"""The samples of each subject by its name, one per round."""


async def raise_failure(_name: str, error: Exception) -> None:
    """Let the failure of a subject end the measurement."""
    raise error


async def interleave(
    subjects: Sequence[Subject],
    rounds: int,
    warm_up: int = 1,
    on_failure: Callable[[str, Exception], Awaitable[None]] = raise_failure,
) -> Results:
    """Run all subjects in each round.

    Args:
        subjects: in the order in which they run.
        rounds: the samples of each subject.
        warm_up: rounds before them, whose samples are discarded.
        on_failure: called with a subject's name and error. If it returns, the others continue without it.
    """
    results: Results = {subject.name: [] for subject in subjects}
    for number in range(1 - warm_up, rounds + 1):
        print(f"  round {number} of {rounds}" if number > 0 else "  warming up", flush=True)
        for subject in [each for each in subjects if each.name in results]:
            try:
                sample = await subject.run()
            except Exception as error:  # a subject may raise whatever its client raises
                await on_failure(subject.name, error)
                del results[subject.name]
            else:
                results[subject.name] += [sample] if number > 0 else []
    return results


async def repeat(measure_round: Callable[[], Awaitable[Mapping[str, Sample]]], rounds: int) -> Results:
    """Run rounds that measure all their subjects by themselves."""
    results: Results = {}
    for number in range(1, rounds + 1):
        print(f"  round {number} of {rounds}", flush=True)
        for name, sample in (await measure_round()).items():
            results.setdefault(name, []).append(sample)
    return results


@dataclass(frozen=True)
class Comparison:
    """A line of the table: the ratio of a subject to another subject of the same run."""

    name: str
    against: str
    """The other subject; ABSOLUTE for the measured value itself."""
    must: float | None = None
    """The ratio to reach; None if the line has no target."""
    moonshot: float | None = None
    metric: Callable[[Sample], float | None] = lambda sample: sample.rate
    metric_name: str = "rate"
    factor: float = 1.0
    """Items per operation, if the ratio counts items."""
    at_most: bool = False
    """Whether lower is better, as with latencies."""
    against_metric: Callable[[Sample], float | None] | None = None
    """Of the other subject, if it is another one."""

    @property
    def title(self) -> str:
        return self.name if self.metric_name == "rate" else f"{self.name}, {self.metric_name}"

    @property
    def better(self) -> str:
        """Which ratios are better."""
        return "lower" if self.at_most else "higher"

    def ratios(self, results: Mapping[str, Sequence[Sample]]) -> list[float]:
        """Return the ratio of each round; empty if one of the two subjects was not measured."""
        samples = results.get(self.name, ())
        if self.against == ABSOLUTE:
            values = [self.metric(sample) for sample in samples]
            return [self.factor * value for value in values if value is not None]
        pairs = [
            (self.metric(a), (self.against_metric or self.metric)(b))
            for a, b in zip(samples, results.get(self.against, ()), strict=False)
        ]
        return [self.factor * a / b for a, b in pairs if a is not None and b]

    def verdict(self, ratio: float) -> str:
        if self.must is None:
            return "reported"
        reached = ratio <= self.must if self.at_most else ratio >= self.must
        return "reached" if reached else "falls short"
