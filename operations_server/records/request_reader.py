"""Reads requests from the audit page by page, the latest first, in bounded time whatever the history.

How it works. The audit has no order but its times, and neighbours of a time are found by BRIN, which cannot
sort. So a page is read from ranges of time that are small enough to be sorted here. The index names ranges
(segments) and the terms in each. What it does not cover yet, and always the last minute, is read in windows
whose width follows what they hold and how long they take. A page ends after PAGE_TIME, also without a single
request: the next page continues below what was scanned.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import asyncpg
from diptych.operations.v1.records_pb2 import Request

from operations_server.records import request_statements as statements
from operations_server.records.database import Database, Driver
from operations_server.records.event_reader import PAGE_TIME
from operations_server.records.request_filter import RequestFilter

BEGINNING, END = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
"""Within what both PostgreSQL's driver and time differences can express."""
FIRST_WINDOW, MIN_WINDOW = timedelta(seconds=10), timedelta(milliseconds=1)
WINDOW_ROWS = 4_000
"""Rows with which a window is too wide, unless it has the minimum width."""
FAST, SLOW = 0.02, 0.1
"""Seconds of a window that becomes wider or narrower."""
SEGMENTS = 500
"""Segments of the first term that one statement compares with those of the other terms."""
NO_LIMIT = 1_000_000

Position = tuple[datetime, str, str]
"""The time, the caller and the request id of a request, or the end of what was scanned."""


@dataclass(frozen=True, slots=True)
class RequestPage:
    """Requests, and the position of the last one; None on the last page."""

    requests: Sequence[Request]
    position: Position | None


class RequestReader:
    """Reads requests.

    Args:
        database: its connections.
        margin: requests that are not older are read without the index: they may belong to transactions that
            have just ended, or to a clock that was set back.
    """

    def __init__(self, database: Database, margin: timedelta = timedelta(minutes=1)) -> None:
        self._database = database
        self._margin = margin

    async def read_page(self, filter_: RequestFilter, after: Position | None, size: int) -> RequestPage:
        """Return the next selected requests.

        Args:
            filter_: selects requests.
            after: the position after which to begin; None for the first page.
            size: the maximum number of requests.
        """
        end, rows = monotonic() + PAGE_TIME, list[Any]()
        async with self._database.connect() as driver:
            async for chunk, scanned_to in _Scan(driver, filter_, self._margin).read(after):
                rows += [row for row in chunk if after is None or _is_behind(row, after)]
                if len(rows) > size:
                    last = rows[size - 1]
                    return RequestPage(_build_all(rows[:size]), _place(last))
                if monotonic() > end:
                    return RequestPage(_build_all(rows), (scanned_to, "", ""))
        return RequestPage(_build_all(rows), None)


def _place(row: Any) -> Position:
    return row["recorded_at"], row["caller"], str(row["request_id"])


def _is_behind(row: Any, after: Position) -> bool:
    time, *others = _place(row)
    return time < after[0] or (time == after[0] and tuple(others) > after[1:])


def _sort(rows: Sequence[Any]) -> Sequence[Any]:
    """Return rows in the order of the list: the latest first, by caller and id at the same time."""
    ordered = sorted(rows, key=lambda row: _place(row)[1:])
    return sorted(ordered, key=lambda row: row["recorded_at"], reverse=True)


@dataclass(frozen=True)
class _Scan:
    """The ranges of one page, downwards."""

    driver: Driver
    filter: RequestFilter
    margin: timedelta

    async def read(self, after: Position | None) -> AsyncIterator[tuple[Sequence[Any], datetime]]:
        """Yield selected rows in their order, and the time down to which, itself excluded, all were read."""
        covered = await self.driver.fetchval(statements.READ_COVERED, self.margin) or BEGINNING
        lowest = BEGINNING
        if self.filter.from_time is not None and self.filter.from_time > BEGINNING:
            lowest = self.filter.from_time - timedelta(microseconds=1)
        upper = min(after[0] if after else END, self._find_last_time())
        async for chunk in self._read_windows(upper, max(covered, lowest)):
            yield chunk
        upper = min(upper, covered)
        while upper > lowest:
            segments = await self._find_segments(upper)
            for segment in segments:
                lower = max(segment["after"], lowest)
                if segment["is_candidate"] and lower < upper:
                    yield await self._read_range(lower, min(segment["until"], upper)), lower
                upper = min(upper, segment["after"])
                if upper <= lowest:
                    return
            if len(segments) < SEGMENTS:
                return
            yield (), upper

    def _find_last_time(self) -> datetime:
        until = self.filter.until_time
        if until is None:
            return END
        return BEGINNING if until <= BEGINNING else until - timedelta(microseconds=1)

    async def _read_windows(
        self, upper: datetime, lower: datetime
    ) -> AsyncIterator[tuple[Sequence[Any], datetime]]:
        now: datetime = await self.driver.fetchval(statements.READ_TIME)
        # Above the current time is only what a clock that was ahead has recorded.
        width = upper - now if upper > now else FIRST_WINDOW
        while upper > lower:
            start = lower if upper - lower <= width else upper - width
            window = upper - start
            began = monotonic()
            rows = await self._read_window(start, upper)
            took = monotonic() - began
            if rows is not None:
                yield rows, start
                width = FIRST_WINDOW if upper > now >= start else width
                upper = start
            if rows is None or took > SLOW:
                width = max(window / 4, MIN_WINDOW)
            elif took < FAST:
                width = min(width * 4, timedelta(days=400_000))

    async def _read_window(self, start: datetime, upper: datetime) -> Sequence[Any] | None:
        """Return the selected rows of a window; None if it is too wide."""
        if upper - start <= MIN_WINDOW:
            return await self._read_range(start, upper)
        try:
            rows = await self._fetch(start, upper, WINDOW_ROWS)
        except asyncpg.QueryCanceledError:  # too many rows were compared
            return None
        return _sort(rows) if len(rows) < WINDOW_ROWS else None

    async def _read_range(self, lower: datetime, upper: datetime) -> Sequence[Any]:
        return _sort(await self._fetch(lower, upper, NO_LIMIT))

    async def _fetch(self, lower: datetime, upper: datetime, limit: int) -> Sequence[Any]:
        values = self.filter.values
        rows: Sequence[Any] = await self.driver.fetch(statements.SCAN_TIMES, lower, upper, *values, limit)
        return rows

    async def _find_segments(self, upper: datetime) -> Sequence[Any]:
        """Return the latest segments from a time downwards, with whether they may have a selected request."""
        if not self.filter.terms:
            return await self.driver.fetch(statements.FIND_SEGMENTS, upper, SEGMENTS)
        first, *others = self.filter.terms
        return await self.driver.fetch(statements.FIND_SEGMENTS_OF_TERMS, first, others, upper, SEGMENTS)


def _build_all(rows: Sequence[Any]) -> list[Request]:
    return [build_request(row) for row in rows]


def build_request(row: Any) -> Request:
    """Return the message of a row of the audit."""
    request = Request(
        request_id=str(row["request_id"]),
        caller=row["caller"],
        on_behalf_of=row["on_behalf_of"] or "",
        command=row["type"],
        outcome=row["outcome"],
        stream=row["stream"],
        correlation_id=row["correlation_id"] or str(row["request_id"]),
        causation_id=row["causation_id"] or "",
        trace_id=(row["traceparent"] or "").partition("-")[2].partition("-")[0],
    )
    request.record_time.FromDatetime(row["recorded_at"])
    request.duration.FromMicroseconds(row["duration_us"])
    return request
