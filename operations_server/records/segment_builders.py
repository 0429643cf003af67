"""Builds the segments of the index, each complete before it is added.

How it works. A segment is added with all its terms in one statement, and begins where the last one ended.
Its range must not change any more. The range of events ends at the settled position (`settled.py`), that of
requests at a time: a transaction locks `streams` before it reads the time of its decision, and
keeps the lock until its commit is visible, so below a time that has passed nothing is added once the
transactions of that moment have ended. SETTLING is beyond the longest transaction of a command server.
A clock of PostgreSQL that was set back ends in the middle of segments, which are then built again. One
process builds at a time, on the connection that holds an advisory lock: a process that loses it cannot write.
"""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

from operations_server.records import event_statements, request_statements
from operations_server.records.database import Driver
from operations_server.records.event_filter import parse_metadata
from operations_server.records.request_reader import BEGINNING
from operations_server.records.settled import FIND_NEWEST, await_event_writers, await_writers
from operations_server.records.terms import hash_term, list_event_terms, list_request_terms
from runtime.process import logs

SEGMENT = 2_000
"""Rows of a segment, about."""
MIN_ROWS = 1_000
"""Rows for which a segment is built at once; fewer wait for MAX_AGE and are read without the index."""
MAX_AGE = 600.0
"""Seconds."""
SETTLING = timedelta(seconds=10)
"""The transactions of command servers are ended after 5 s."""
MAX_DRIFT = timedelta(seconds=1)
"""By so much two clocks may differ between two segments."""
FIRST_REMOVAL = 86_400.0
"""Seconds of the index that are built again if the clock was set back while no builder ran."""
MAX_WINDOW, MIN_WINDOW = timedelta(days=800_000), timedelta(milliseconds=1)
NO_LIMIT = 1_000_000

log = logs.get_logger(__name__)


class EventSegments:
    """Builds the segments of events."""

    async def build(self, driver: Driver, max_age_passed: bool) -> int:
        """Add the next segment, and return its number of events; 0 if there are too few.

        Args:
            driver: the connection that holds the lock.
            max_age_passed: whether few events are enough.
        """
        after = int(await driver.fetchval(event_statements.READ_PROGRESS))
        settled = int(await driver.fetchval(FIND_NEWEST))
        if settled - after < (1 if max_age_passed else MIN_ROWS):
            return 0
        await await_event_writers(driver)
        rows = await driver.fetch(event_statements.READ_UNINDEXED, after, settled, SEGMENT)
        if not rows:
            return 0
        until = rows[-1]["position"] if len(rows) == SEGMENT else settled
        times = [row["recorded_at"] for row in rows]
        terms = await _hash_terms(map(_list_event_terms, rows))
        await driver.execute(
            event_statements.ADD_SEGMENT, after, until, min(times), max(times), len(rows), terms
        )
        return len(rows)


class RequestSegments:
    """Builds the segments of requests.

    Args:
        settling: the time below which no transaction is under way; the lock of `streams` is a second guard.
    """

    def __init__(self, settling: timedelta = SETTLING) -> None:
        self._settling = settling
        self._read_at, self._latest_time = 0.0, BEGINNING
        """The moment of the last reading by this process's clock, and PostgreSQL's time then."""
        self._window = MAX_WINDOW
        """The width of the ranges of time that are read: the audit has no order to read it in."""

    async def build(self, driver: Driver, max_age_passed: bool) -> int:
        """Add the next segment, and return its number of requests; 0 if there are too few.

        Args:
            driver: the connection that holds the lock.
            max_age_passed: whether few requests are enough.
        """
        ((progress, now),) = await driver.fetch(request_statements.READ_PROGRESS)
        passed = monotonic() - self._read_at if self._read_at else FIRST_REMOVAL
        was_set_back = now < self._latest_time + timedelta(seconds=passed) - MAX_DRIFT
        self._read_at, self._latest_time = monotonic(), now
        if progress is not None and (progress > now or was_set_back):
            await self._remove_from(driver, now - timedelta(seconds=passed) - self._settling)
            return 0
        await await_writers(driver, ["streams", "audit"], ["RowShareLock", "RowExclusiveLock"])
        after, settled = progress or BEGINNING, now - self._settling
        rows, until = await self._read(driver, after, settled)
        if len(rows) < (1 if max_age_passed else MIN_ROWS):
            return 0
        terms = await _hash_terms(map(_list_request_terms, rows))
        await driver.execute(request_statements.ADD_SEGMENT, after, until, len(rows), terms)
        return len(rows)

    async def _read(self, driver: Driver, after: datetime, settled: datetime) -> tuple[list[Any], datetime]:
        """Return the requests of the next segment, and the time up to which they are complete."""
        rows, start = list[Any](), after
        while start < settled and len(rows) < SEGMENT:
            until = settled if settled - start <= self._window else start + self._window
            limit = 2 * SEGMENT if until - start > MIN_WINDOW else NO_LIMIT
            read = await driver.fetch(request_statements.READ_UNINDEXED, start, until, limit)
            # As wide as a segment, by what the last window held.
            factor = min(4.0, max(0.25, SEGMENT / max(1, len(read))))
            self._window = min(max((until - start) * factor, MIN_WINDOW), MAX_WINDOW)
            if len(read) == limit:
                continue
            rows += read
            start = until
        return rows, start

    async def _remove_from(self, driver: Driver, time: datetime) -> None:
        """Remove the segments after a time that comes again: requests may be recorded within them."""
        log.warning("PostgreSQL's clock was set back; building a part of the index again", since=str(time))
        await driver.execute(request_statements.REMOVE_SEGMENTS_FROM, time)


def _list_event_terms(row: Any) -> Sequence[tuple[str, str]]:
    metadata = parse_metadata(row["metadata"])
    ids = (str(metadata.get(name, "")) for name in ("correlation_id", "causation_id"))
    return list_event_terms(row["type"], *ids)


def _list_request_terms(row: Any) -> Sequence[tuple[str, str]]:
    names = ("caller", "type", "outcome", "stream", "correlation_id", "causation_id")
    return list_request_terms(str(row["request_id"]), *(row[name] for name in names))


async def _hash_terms(rows: Iterable[Sequence[tuple[str, str]]]) -> list[int]:
    """Return the terms of rows, sorted, each once; the event loop runs in between."""
    terms = set[tuple[str, str]]()
    for number, pairs in enumerate(rows):
        terms.update(pairs)
        if number % 200 == 199:
            await asyncio.sleep(0)
    return sorted({hash_term(kind, value) for kind, value in terms})
