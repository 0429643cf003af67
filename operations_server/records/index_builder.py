"""Keeps the index of records behind the write, in the background and with little of PostgreSQL's time.

How it works. One segment after the other is built, and after each the builder pauses for a multiple of the
time that it took. The multiple is large while many rows are recorded, or while a segment takes longer than
the fastest ones: then commands need PostgreSQL and the processor. The index falls behind meanwhile, and
questions read more rows without it; a page still ends in time.
"""

import asyncio
from contextlib import suppress
from time import monotonic
from typing import Protocol

from operations_server.records.database import Database, Driver
from operations_server.records.segment_builders import MAX_AGE, EventSegments, RequestSegments
from operations_server.records.settled import FIND_NEWEST
from runtime.process import logs

LOCK_KEY = 0x4449505449
"""The key of the advisory lock of the process that builds: `DIPTI` in ASCII."""
IDLE_PAUSE = 5.0
"""Seconds until the next attempt when nothing is left to index, or another process builds."""
SHORT_PAUSE, LONG_PAUSE = 3, 80
"""Multiples of the time that a segment took: a quarter of one processor, and little more than a hundredth."""
MAX_PAUSE = 20.0
"""Seconds."""
BUSY_FACTOR = 1.7
"""By this factor a segment takes longer than the fastest ones when PostgreSQL is busy."""
BUSY_RATE = 300.0
"""Events a second with which PostgreSQL is busy."""
DECAY = 1.01
"""By this factor the fastest time is raised with each segment, so that an outlier is forgotten."""

log = logs.get_logger(__name__)


class Segments(Protocol):
    """Builds the segments of one index."""

    async def build(self, driver: Driver, max_age_passed: bool) -> int:
        """Add the next segment, and return the number of its rows; 0 if there are too few.

        Args:
            driver: the connection that holds the lock.
            max_age_passed: whether few rows are enough.
        """


class IndexBuilder:
    """Builds the index of events and requests, and further ones.

    Args:
        database: with one connection.
        more: the segments of the further ones.
    """

    def __init__(self, database: Database, *more: Segments) -> None:
        self._database = database
        segments: list[Segments] = [EventSegments(), RequestSegments(), *more]
        self._kinds = [_Kind(each) for each in segments]
        self._rate = _Rate()

    async def run(self, stopping: asyncio.Event) -> None:
        """Build until the process stops."""
        failures = logs.RepeatedErrors(log, "Building the index of records failed")
        while not stopping.is_set():
            pause = IDLE_PAUSE
            try:
                pause = await self.build()
                failures.reset()
            except Exception as error:  # for example, PostgreSQL is unavailable
                failures.report(error)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause)

    async def build(self) -> float:
        """Build the next segment of each kind that is due; return the seconds to pause."""
        async with self._database.connect() as driver:
            if not await driver.fetchval("SELECT pg_try_advisory_lock($1)", LOCK_KEY):
                return IDLE_PAUSE
            try:
                is_busy = self._rate.measure(await driver.fetchval(FIND_NEWEST)) > BUSY_RATE
                return min([await kind.build_if_due(driver, is_busy) for kind in self._kinds])
            finally:
                await driver.execute("SELECT pg_advisory_unlock($1)", LOCK_KEY)


class _Rate:
    """The rate at which a number grows, as far as it was measured over a second."""

    def __init__(self) -> None:
        self._time, self._number = monotonic(), -1
        self._rate = 0.0

    def measure(self, number: int) -> float:
        passed = monotonic() - self._time
        if self._number < 0 or passed >= 1.0:
            self._rate = (number - self._number) / passed if self._number >= 0 else 0.0
            self._time, self._number = monotonic(), number
        return self._rate


class _Kind:
    """The segments of one kind, and the times that they take."""

    def __init__(self, segments: Segments) -> None:
        self._segments = segments
        self._built_at = self._due_at = monotonic()
        self._fastest = float("inf")
        """Seconds a row."""

    async def build_if_due(self, driver: Driver, is_busy: bool) -> float:
        """Build the next segment, if it is due, and return the seconds until the following one is."""
        began = monotonic()
        if began >= self._due_at:
            rows = await self._segments.build(driver, began - self._built_at > MAX_AGE)
            self._due_at = monotonic() + (self._choose_pause(began, rows, is_busy) if rows else IDLE_PAUSE)
        return max(0.0, self._due_at - monotonic())

    def _choose_pause(self, began: float, rows: int, is_busy: bool) -> float:
        self._built_at = monotonic()
        took = self._built_at - began
        self._fastest = min(self._fastest * DECAY, took / rows)
        is_slow = took / rows > self._fastest * BUSY_FACTOR
        return min(took * (LONG_PAUSE if is_busy or is_slow else SHORT_PAUSE), MAX_PAUSE)
