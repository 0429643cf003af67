"""Overload: a server at its peak, at three times that rate, and some seconds later; and between them a caller
beside another one (`bench.fairness`)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

from bench.comparison import InvalidRun, Sample, Subject
from bench.environment import Environment, get_pid
from bench.fairness import Fairness, name_alone, name_beside
from bench.process_cost import CpuMeter, read_memory
from bench.served_method import ServedMethod, open_methods

FACTOR = 3
"""The overload, as a multiple of the peak rate."""
DEADLINE = 5.0
"""Seconds per call; callers should set a deadline too."""


def name_peak(method: str) -> str:
    """Return the name of the subject that measures the peak of a method."""
    return f"{method}, peak"


def name_overload(method: str) -> str:
    """Return the name of the subject that calls a method more often than it can be served."""
    return f"{method} at {FACTOR} times that"


def name_later(method: str) -> str:
    """Return the name of the subject that measures the peak again after the overload."""
    return f"{method}, later"


class Overload:
    """One method of one server, in three subjects that run in this order."""

    def __init__(self, method: ServedMethod) -> None:
        self._method = method
        self._plan = method.environment.plan
        self._peak = 0.0
        self._ended_at = 0.0
        """When the overload ended."""

    async def measure_peak(self) -> Sample:
        """Run a closed loop, whose rate is the peak."""
        self._peak = 0.0
        result = await self._method.measure_peak(self._plan.overload_seconds)
        self._peak = result.rate
        return Sample(result.rate, result.latency)

    def get_peak(self) -> float:
        """Return the peak rate of this round.

        Raises:
            InvalidRun: it could not be measured.
        """
        if not self._peak:
            raise InvalidRun(f"the peak of {self._method.name} is unknown")
        return self._peak

    async def measure_overload(self) -> Sample:
        """Run an open loop at a multiple of the peak."""
        process = self._method.process
        pid, rate = get_pid(process), FACTOR * self.get_peak()
        memory_before, meter = read_memory(pid), CpuMeter({process.name: pid})
        async with self._method.check_events() as results:
            results.append(result := await self._method.send(self._plan.overload_seconds, rate, DEADLINE))
        self._ended_at = monotonic()
        growth = read_memory(pid) - memory_before
        median, p99 = (result.error_latency.get(name, 0.0) for name in ("50", "99"))
        print(
            f"  {self._method.name} at {rate:,.0f}/s: {dict(result.statuses)} by status,"
            f" {result.with_details} with details, {result.unsent} not sent,"
            f" errors after {median:.0f} ms (99 %: {p99:.0f}), {growth / 1e6:+.0f} MB",
            flush=True,
        )
        cpu = meter.measure(sum(result.statuses.values()))
        return Sample(result.rate, result.latency, cpu, memory=growth)

    async def measure_later(self) -> Sample:
        """Measure the peak again, some seconds after the overload."""
        await asyncio.sleep(self._ended_at + self._plan.recovery_seconds - monotonic())
        result = await self._method.measure_peak(self._plan.overload_seconds)
        return Sample(result.rate, result.latency)


@asynccontextmanager
async def open_subjects(environment: Environment) -> AsyncIterator[list[Subject]]:
    """Yield all subjects of each method on each server, and the later peaks after the last of them."""
    async with open_methods(environment) as methods:
        overloads = {method.name: Overload(method) for method in methods}
        subjects = []
        for method in methods:
            overload = overloads[method.name]
            fairness = Fairness(method, overload.get_peak)
            subjects += [
                Subject(name_peak(method.name), overload.measure_peak),
                Subject(name_overload(method.name), overload.measure_overload),
                Subject(name_alone(method.name), fairness.measure_alone),
                Subject(name_beside(method.name), fairness.measure_beside),
            ]
        yield [
            *subjects,
            *(Subject(name_later(name), overload.measure_later) for name, overload in overloads.items()),
        ]
