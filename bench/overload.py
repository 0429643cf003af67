"""Overload: a server at its peak, at three times that rate, and some seconds later."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from bench import requests
from bench.comparison import InvalidRun, Sample, Subject
from bench.environment import IN_FLIGHT, Environment, get_pid
from bench.load_generator import LoadResult
from bench.process_cost import CpuMeter, read_memory
from bench.services import GET, PLACE
from devstack.processes import Process
from operations.processes import COMMAND_SERVER, QUERY_SERVER

FACTOR = 3
"""The overload, as a multiple of the peak rate."""
DEADLINE = 5.0
"""Seconds per call; callers should set a deadline too."""
MAX_IN_FLIGHT = 50_000
"""Concurrent calls during the overload."""


class Overload:
    """One method of one server, in three subjects that run in this order."""

    def __init__(
        self, environment: Environment, name: str, method: str, process: Process, events: int
    ) -> None:
        self._environment = environment
        self._name = name
        self._method = method
        self._process = process
        self._events = events
        self._peak = 0.0

    def subjects(self) -> list[Subject]:
        return [
            Subject(f"{self._name}, peak", self.measure_peak),
            Subject(f"{self._name} at {FACTOR} times that", self.measure_overload),
            Subject(
                f"{self._name}, later",
                partial(self.measure_peak, after=self._environment.plan.recovery_seconds),
            ),
        ]

    async def measure_peak(self, after: float = 0.0) -> Sample:
        """Run a closed loop after a pause of some seconds; without a pause, its rate is the peak."""
        await asyncio.sleep(after)
        result = await self._run(self._environment.plan.seconds, in_flight=IN_FLIGHT)
        if result.ok != sum(result.statuses.values()):
            raise InvalidRun(f"{self._name} returned {dict(result.statuses)}")
        if not after:
            self._peak = result.rate
        return Sample(result.rate, result.latency)

    async def measure_overload(self) -> Sample:
        """Run an open loop at a multiple of the peak."""
        pid = get_pid(self._process)
        memory_before = read_memory(pid)
        meter = CpuMeter({self._process.name: pid})
        rate = FACTOR * self._peak
        result = await self._run(
            self._environment.plan.seconds, in_flight=MAX_IN_FLIGHT, rate=rate, deadline=DEADLINE
        )
        median, p99 = (result.error_latency.get(name, 0.0) for name in ("50", "99"))
        growth = (read_memory(pid) - memory_before) / 1e6
        print(
            f"  {self._name} at {rate:,.0f}/s: {dict(result.statuses)} by status, "
            f"errors after {median:.0f} ms (99 %: {p99:.0f}), {growth:+.0f} MB",
            flush=True,
        )
        return Sample(result.rate, result.latency, meter.measure(sum(result.statuses.values())))

    async def _run(
        self, seconds: float, in_flight: int, rate: float = 0.0, deadline: float = 0.0
    ) -> LoadResult:
        """Send requests; of failed commands any number may have been recorded.

        Raises:
            InvalidRun: the number of recorded events does not fit the responses.
        """
        recorded_before = await self._environment.query_number("SELECT count(*) FROM events")
        result = await self._environment.generator.run(
            self._process.address,
            self._method,
            self._write_requests(int(seconds * (rate or 3 * self._peak or 5_000))),
            token=self._environment.token,
            seconds=seconds,
            in_flight=in_flight,
            rate=rate,
            deadline=deadline,
        )
        await self._environment.reset_expected_events()
        new = self._environment.expected_events - recorded_before
        if not self._events * result.ok <= new <= self._events * sum(result.statuses.values()):
            raise InvalidRun(f"{result.ok} calls of {self._name} succeeded, {new} events were recorded")
        return result

    def _write_requests(self, count: int) -> Path:
        messages = (
            requests.generate_orders(count)
            if self._events
            else requests.generate_reads("o-", self._environment.placed_orders, 0, count)
        )
        return self._environment.write_requests("requests-overload", messages)


@asynccontextmanager
async def open_subjects(environment: Environment) -> AsyncIterator[list[Subject]]:
    """Yield the subjects of GetOrder, then those of PlaceOrder."""
    stack = environment.stack
    query, command = stack.of(QUERY_SERVER)[0], stack.of(COMMAND_SERVER)[0]
    yield [
        *Overload(environment, "GetOrder", GET, query, 0).subjects(),
        *Overload(environment, "PlaceOrder", PLACE, command, 1).subjects(),
    ]
