"""Calls that wait until something has happened, for a bounded time and in bounded number.

How it works. A wait ends when it is woken, or after MAX_WAIT, or shortly before its call's deadline, so that
the answer still arrives. "Shortly" grows with what delays answers: the lateness of the event loop, and the
number of waits that may end at the same moment. Both are known best at that moment, so no timer is set in
advance. While there are waits, a tick every 10 ms ends those whose time has come. A late tick shows that the
loop is late.
"""

import asyncio
import heapq
import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from itertools import count

from runtime.grpc.call_limit import CallLimit
from runtime.grpc.metrics import WAITS_ENDED, WAITS_OPEN
from runtime.process.settings import Settings

DEADLINE_MARGIN = 0.05
"""Seconds before a call's deadline at which its wait ends, if the event loop is idle."""
MARGIN_PER_WAIT = 0.0005
"""Seconds that the error of one wait takes."""
LATENESS_FACTOR = 2
"""A late loop delays both the end of a wait and the error that follows."""
MAX_LATENESS = 0.5
"""Seconds of lateness beyond which the margin does not grow: a process that was stopped for a minute once."""
LATENESS_DECAY = 0.995
"""By this factor the measured lateness shrinks with each tick: it halves in 1.4 seconds."""
TICK = 0.01
"""Seconds."""
SPREAD = 0.1
"""By up to this part a wait is shorter than its maximum. Waits that began together then end one by one."""
DEFAULT_MAX_WAIT = 2.0
"""Seconds that a call without a deadline waits, unless the setting is shorter."""


def compute_deadline(remaining: float | None) -> float | None:
    """Return a call's deadline as a time of the event loop's clock.

    Args:
        remaining: seconds until the deadline; None if the call has none.
    """
    return None if remaining is None else asyncio.get_running_loop().time() + remaining


class Woken(Enum):
    """Why a wait has ended."""

    REACHED = "what the call waits for has happened"
    DISTURBED = "something else has happened, for instance a rebuild: look again"
    TIME_UP = "the time is up"


class Wait:
    """The wait of one call, which may sleep several times; made by `Waits.begin`."""

    def __init__(self) -> None:
        self.is_time_up = False
        self._sleeping: asyncio.Future[Woken] | None = None

    async def sleep(self) -> Woken:
        """Return once the wait is woken or its time is up."""
        if self.is_time_up:
            return Woken.TIME_UP
        self._sleeping = asyncio.get_running_loop().create_future()
        return await self._sleeping

    def wake(self, reason: Woken) -> None:
        self.is_time_up |= reason is Woken.TIME_UP
        if self._sleeping is not None and not self._sleeping.done():
            self._sleeping.set_result(reason)


class Waits:
    """The waits of a process.

    Args:
        max_wait: seconds after which every wait ends.
        limit: the places for waiting calls.
    """

    def __init__(self, max_wait: float, limit: CallLimit) -> None:
        self._max_wait = max_wait
        self._limit = limit
        self._ends: list[tuple[float, int, Wait]] = []
        """A heap of the times at which waits end, with DEADLINE_MARGIN. Waits that were woken stay in it."""
        self._numbers = count()
        self._lateness = 0.0
        self._tick_due = 0.0
        WAITS_OPEN.observe(lambda: limit.taken)

    @classmethod
    def of(cls, settings: Settings) -> "Waits":
        limit = CallLimit(
            "TOO_MANY_WAITS", "waiting calls", settings.max_waits_per_caller, settings.max_waits
        )
        return cls(settings.max_wait, limit)

    @property
    def active(self) -> int:
        """The number of calls that wait."""
        return self._limit.taken

    @property
    def margin(self) -> float:
        """Seconds before its deadline at which a wait ends now."""
        lateness = min(self._lateness, MAX_LATENESS)
        return DEADLINE_MARGIN + LATENESS_FACTOR * lateness + MARGIN_PER_WAIT * self.active

    @contextmanager
    def begin(self, deadline: float | None) -> Iterator[Wait]:
        """Yield the wait of a call.

        Args:
            deadline: of the call, from `compute_deadline`.

        Raises:
            RpcError: `TOO_MANY_WAITS`.
        """
        with self._limit.take_place():
            now = asyncio.get_running_loop().time()
            max_wait = self._max_wait * random.uniform(1 - SPREAD, 1)  # noqa: S311 - keeps no secret
            max_end = now + max_wait + DEADLINE_MARGIN
            if deadline is None:
                deadline = now + DEFAULT_MAX_WAIT + DEADLINE_MARGIN
            end = min(max_end, deadline)
            if not self._ends:
                self._schedule_tick()
            wait = Wait()
            heapq.heappush(self._ends, (end, next(self._numbers), wait))
            outcome = "left"  # the client has gone, or a read has failed
            try:
                yield wait
                outcome = "reached"
            finally:
                WAITS_ENDED.count("timed_out" if wait.is_time_up else outcome)

    def _schedule_tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._tick_due = loop.time() + TICK
        loop.call_at(self._tick_due, self._tick)

    def _tick(self) -> None:
        now = asyncio.get_running_loop().time()
        self._lateness = max(now - self._tick_due, self._lateness * LATENESS_DECAY)
        margin = self.margin
        while self._ends and self._ends[0][0] - margin <= now:
            heapq.heappop(self._ends)[2].wake(Woken.TIME_UP)
        if not self.active:
            self._ends.clear()
        if self._ends:
            self._schedule_tick()
