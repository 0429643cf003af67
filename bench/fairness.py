"""Fairness: a caller beside another one who sends ten times as much.

A server's peak is divided into SHARES. The caller sends at one of them, once alone and once beside another
caller at ten times this rate, which is more than the server can answer.
"""

import asyncio
from collections.abc import Callable
from functools import partial

from bench import stack_host
from bench.comparison import Sample
from bench.load_generator import LoadResult, keep_sending
from bench.served_method import ServedMethod

SHARES = 4
GREED = 10
"""The other caller's rate, as a multiple of a share."""
DEADLINE = 2.0
"""Seconds per call."""
LEAD_SECONDS = 0.5
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
    """One method of one server, in two subjects that run in this order.

    Args:
        method: the method.
        get_peak: returns the server's peak rate.
    """

    def __init__(self, method: ServedMethod, get_peak: Callable[[], float]) -> None:
        self._method = method
        self._get_peak = get_peak
        self._seconds = method.environment.plan.overload_seconds
        self._greedy_token = method.environment.stack.token(*stack_host.SCOPES, subject="greedy")

    async def measure_alone(self) -> Sample:
        """Send at one share of the peak."""
        async with self._method.check_events() as results:
            results.append(result := await self._send_share())
        return Sample(result.rate, result.latency)

    async def measure_beside(self) -> Sample:
        """Send at the same rate while the other caller sends, too."""
        async with self._method.check_events() as results:
            results += await self._send_both()
        result, greedy = results
        print(
            f"  {self._method.name}, a caller at {self._get_peak() / SHARES:,.0f}/s:"
            f" {dict(result.statuses)} by status;"
            f" the other one: {dict(greedy.statuses)}, {greedy.unsent} not sent",
            flush=True,
        )
        return Sample(result.rate, result.latency)

    async def _send_share(self) -> LoadResult:
        return await self._method.send(self._seconds, self._get_peak() / SHARES, DEADLINE)

    async def _send_both(self) -> tuple[LoadResult, LoadResult]:
        rate = GREED * self._get_peak() / SHARES
        send = partial(self._method.send, MAX_SECONDS, rate, DEADLINE, self._greedy_token)
        async with keep_sending(send, "the greedy caller ended before the other one") as greedy:
            await asyncio.wait({greedy}, timeout=LEAD_SECONDS)
            result = await self._send_share()
        return result, greedy.result()
