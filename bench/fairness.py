"""Fairness: a caller beside another one who sends ten times as much.

A server's peak is divided into SHARES. The caller sends at one of them, once alone and once beside another
caller at ten times this rate, which is more than the server can answer.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench import stack_host
from bench.comparison import InvalidRun, Sample, Subject
from bench.environment import Environment
from bench.load_generator import LoadResult
from bench.served_method import ServedMethod, open_methods

SHARES = 4
GREED = 10
"""The other caller's rate, as a multiple of a share."""
LEAD_SECONDS = 1.0
"""Seconds for which the other caller sends before the caller begins."""
MAX_SECONDS = 60.0
"""After which the other caller ends even if the caller does not."""


def name_alone(method: str) -> str:
    """Return the name of the subject in which one caller is alone."""
    return f"{method}, one caller alone"


def name_beside(method: str) -> str:
    """Return the name of the subject in which a caller is beside a greedy one."""
    return f"{method}, one caller beside {GREED} times its share"


class Fairness:
    """One method of one server, in two subjects that run in this order."""

    def __init__(self, method: ServedMethod) -> None:
        self._method = method
        self._seconds = method.environment.plan.seconds / 2
        stack = method.environment.stack
        self._greedy_token = stack.token(*stack_host.SCOPES, subject="greedy")
        self._share = 0.0

    async def measure_alone(self) -> Sample:
        """Find the peak, and send at one share of it."""
        self._share = 0.0
        share = (await self._method.measure_peak(self._seconds)).rate / SHARES
        async with self._method.check_events() as results:
            results.append(result := await self._method.send(self._seconds, share))
        self._share = share
        return Sample(result.rate, result.latency)

    async def measure_beside(self) -> Sample:
        """Send at the same rate while the other caller sends, too."""
        if not self._share:
            raise InvalidRun(f"the peak of {self._method.name} is unknown")
        async with self._method.check_events() as results:
            results += await self._send_both()
        result, greedy = results
        print(
            f"  {self._method.name}, a caller at {self._share:,.0f}/s: {dict(result.statuses)} by status;"
            f" the other one: {dict(greedy.statuses)}, {greedy.unsent} not sent",
            flush=True,
        )
        return Sample(result.rate, result.latency)

    async def _send_both(self) -> tuple[LoadResult, LoadResult]:
        stop = asyncio.Event()
        greedy = asyncio.create_task(
            self._method.send(MAX_SECONDS, GREED * self._share, self._greedy_token, stop)
        )
        try:
            await asyncio.wait({greedy}, timeout=LEAD_SECONDS)
            result = await self._method.send(self._seconds, self._share)
            if greedy.done():
                raise InvalidRun("the greedy caller ended before the other one")
        finally:
            stop.set()
            greedy_result = await greedy
        return result, greedy_result


@asynccontextmanager
async def open_subjects(environment: Environment) -> AsyncIterator[list[Subject]]:
    """Yield a caller alone and beside another one, for each method on each server."""
    async with open_methods(environment) as methods:
        subjects = []
        for method in methods:
            fairness = Fairness(method)
            subjects += [
                Subject(name_alone(method.name), fairness.measure_alone),
                Subject(name_beside(method.name), fairness.measure_beside),
            ]
        yield subjects
