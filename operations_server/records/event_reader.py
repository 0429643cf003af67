"""Reads events page by page, in bounded time whatever the history.

How it works. A scan reads a bounded number of rows and ends a page after PAGE_TIME, also without a single
event: the next page continues after what was scanned. Without a stream, the index names the segments that
may have the event; after the part that it covers, rows are read one after another up to the settled
position (`settled.py`). Below that position nothing can be added, so a reader that continues after it
misses nothing. Rows are read without their data at first, which only selected events need.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from diptych.operations.v1.records_pb2 import Event

from operations_server.records import event_statements as statements
from operations_server.records.content import Content
from operations_server.records.database import Database, Driver
from operations_server.records.event_filter import EventFilter, parse_metadata
from operations_server.records.event_messages import build_event, open_data
from runtime.grpc.response_size import MAX_PAGE_BYTES, PageBudget

CHUNK = 5_000
"""Positions or versions of one statement."""
DRIVER_SEGMENTS = 500
"""Segments of the first term that one statement compares with those of the other terms."""
PAGE_TIME = 0.4
"""Seconds after which a page ends."""
EVENTS_AT_ONCE = 20
"""Events that are decoded before the event loop runs again."""
READ_BYTES = 4_000_000
"""Bytes of events that are read at once, beside the last of them."""


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events, and the position (the version, for events of a stream) up to which events were selected."""

    events: Sequence[Event]
    scanned_to: int
    is_last: bool
    """Whether nothing is left up to the end of the scan."""


class EventReader:
    """Reads events.

    Args:
        database: its connections.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read_page(
        self, filter_: EventFilter, after: int, until: int, size: int, content: Content = Content.MASKED
    ) -> EventPage:
        """Return the next selected events.

        Args:
            filter_: selects events.
            after: the position after which to begin; for events of a stream, the version.
            until: the last position to read; it is settled.
            size: the maximum number of events.
            content: how much of the events is shown.
        """
        end = monotonic() + PAGE_TIME
        budget, events = PageBudget(MAX_PAGE_BYTES), list[Event]()
        async with self._database.connect() as driver:
            scan = _Scan(driver, filter_, until)
            chunks = scan.read_stream(after, size) if filter_.stream else scan.read_all(after, size)
            async for chunk in chunks:
                missing = size - len(events)
                async for row, event in self._build_events(driver, chunk.rows[:missing], content):
                    if not budget.take(event.ByteSize()):
                        return EventPage(events, after, is_last=False)
                    events.append(event)
                    after = row["version"] if filter_.stream else row["position"]
                if len(chunk.rows) > missing:
                    return EventPage(events, after, is_last=False)
                after = max(after, chunk.scanned_to)
                if len(events) == size or monotonic() > end:
                    return EventPage(events, after, is_last=chunk.is_last)
        return EventPage(events, after, is_last=True)

    async def _build_events(
        self, driver: Driver, rows: Sequence[Any], content: Content
    ) -> AsyncIterator[tuple[Any, Event]]:
        """Yield the rows with their events; read the data of as many at once as a response may have."""
        at = 0
        while at < len(rows):
            count, size = 0, 0
            while at + count < len(rows) and size < READ_BYTES:
                size += rows[at + count]["bytes"]
                count += 1
            read = rows[at : at + count]
            found = dict(await driver.fetch(statements.READ_DATA, [row["position"] for row in read]))
            for number, row in enumerate(read):
                data = found[row["position"]]
                yield row, build_event(row, await open_data(self._database, row, data, content), content)
                if number % EVENTS_AT_ONCE == 0:
                    await asyncio.sleep(0)
            at += count


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Selected rows, and the position or version up to which all rows were read."""

    rows: Sequence[Any]
    scanned_to: int
    is_last: bool = False


@dataclass(frozen=True)
class _Scan:
    """The chunks of one page."""

    driver: Driver
    filter: EventFilter
    until: int

    async def read_stream(self, after: int, size: int) -> AsyncIterator[_Chunk]:
        """Yield chunks of a stream by versions."""
        last = await self.driver.fetchval(statements.FIND_LAST_VERSION, self.filter.stream, self.until)
        last = last or 0
        if self.filter.until_version:
            last = min(last, self.filter.until_version)
        while after < last:
            chunk_end = min(last, after + CHUNK)
            rows = await self.driver.fetch(
                statements.SCAN_VERSIONS,
                *(after, chunk_end, *self.filter.values, size + 1),
                *(self.filter.stream, self.filter.after_position, self.until),
            )
            chunk = self._select(rows, "version", chunk_end, last, size)
            yield chunk
            after = chunk.scanned_to

    async def read_all(self, after: int, size: int) -> AsyncIterator[_Chunk]:
        """Yield chunks by positions: the segments of the index that may have events, and then the rest."""
        is_indexed = bool(self.filter.terms or self.filter.from_time or self.filter.until_time)
        covered = min(await self.driver.fetchval(statements.READ_PROGRESS), self.until) if is_indexed else 0
        while after < covered:
            segments = await self._find_segments(after)
            for start, end, is_candidate in segments:
                if is_candidate:
                    async for chunk in self._read_range(max(after, start), min(end, covered), size):
                        yield chunk
            after = segments[-1][1] if segments else covered
            yield _Chunk((), min(after, covered))
        async for chunk in self._read_range(max(after, covered), self.until, size):
            yield chunk

    async def _read_range(self, after: int, until: int, size: int) -> AsyncIterator[_Chunk]:
        while after < until:
            chunk_end = min(until, after + CHUNK)
            rows = await self.driver.fetch(
                statements.SCAN_POSITIONS, after, chunk_end, *self.filter.values, size + 1
            )
            chunk = self._select(rows, "position", chunk_end, self.until, size)
            yield chunk
            after = chunk.scanned_to

    def _select(self, rows: Sequence[Any], key: str, chunk_end: int, last: int, size: int) -> _Chunk:
        scanned_to = chunk_end if len(rows) <= size else rows[-1][key]
        selects = self.filter.selects
        selected = [row for row in rows if selects(row["recorded_at"], parse_metadata(row["metadata"]))]
        return _Chunk(selected, scanned_to, is_last=scanned_to == last)

    async def _find_segments(self, after: int) -> Sequence[Any]:
        """Return the first segments after a position, each with whether it may have a selected event."""
        times = self.filter.from_time, self.filter.until_time
        if not self.filter.terms:
            return await self.driver.fetch(statements.FIND_SEGMENTS_OF_TIMES, after, *times, DRIVER_SEGMENTS)
        first, *others = self.filter.terms
        return await self.driver.fetch(
            statements.FIND_SEGMENTS_OF_TERMS, first, others, after, *times, DRIVER_SEGMENTS
        )
