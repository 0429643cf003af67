"""Events in the order of their positions, without an end (a tail) or with one (an export).

How it works. Both read pages up to the settled position (`settled.py`), so an event that commits late comes
before everything with a higher position, and each event comes once. Nothing is read before the caller has
taken the page before: a slow caller costs one page of memory. All tails share one poll for a new settled
position.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from operations_server.records.content import Content
from operations_server.records.event_filter import EventFilter
from operations_server.records.event_reader import EventPage, EventReader
from operations_server.records.settled import Settled
from runtime.grpc.rpc_error import RpcError

INTERVAL = 0.1
"""Seconds between two polls for new events."""
PAGE_SIZE = 200
EXPORT_PAGE_SIZE = 500


@dataclass(frozen=True, slots=True)
class SentEvents:
    """A page, and the position up to which all selected events were sent with it."""

    page: EventPage
    position: int
    until: int


class EventTail:
    """Reads events on behalf of tails and exports.

    Args:
        reader: reads pages.
        settled: finds the position up to which to read.
        stopping: set when the process stops.
    """

    def __init__(self, reader: EventReader, settled: Settled, stopping: asyncio.Event) -> None:
        self._reader = reader
        self._settled = settled
        self._stopping = stopping
        self._next: asyncio.Task[tuple[str, int]] | None = None

    async def tail(
        self, filter_: EventFilter, after: int | None, content: Content = Content.MASKED
    ) -> AsyncIterator[SentEvents]:
        """Yield pages for as long as the process runs; those after `after`, or new ones if it is None.

        Raises:
            RpcError: `POSITION_NOT_REACHED`, `EVENTS_RESTORED`, or `STOPPING`.
        """
        incarnation, settled = await self._settled.find()
        if after is not None:
            await self._check_reached(after)
        cursor = _Cursor(self._reader, filter_, settled if after is None else after, content)
        while True:
            async for sent in cursor.read(settled, PAGE_SIZE):
                if sent.page.events or not sent.page.is_last:
                    yield sent
                self._check_running()
            current, found = await self._find_next()
            self._check_running()
            if current != incarnation:
                raise _create_restored_error()
            settled = max(settled, found)

    async def export(
        self, filter_: EventFilter, after: int, until: int, content: Content = Content.MASKED
    ) -> AsyncIterator[SentEvents]:
        """Yield pages up to a position, or up to the one that is settled now.

        Raises:
            RpcError: `POSITION_NOT_REACHED`, `EVENTS_RESTORED`, or `STOPPING`.
        """
        incarnation, settled = await self._settled.find()
        await self._check_reached(max(after, until))
        cursor = _Cursor(self._reader, filter_, after, content)
        async for sent in cursor.read(min(until, settled) if until else settled, EXPORT_PAGE_SIZE):
            if await self._settled.read_incarnation() != incarnation:
                raise _create_restored_error()
            yield sent
            self._check_running()

    def close(self) -> None:
        if self._next is not None:
            self._next.cancel()

    async def _check_reached(self, position: int) -> None:
        newest = await self._settled.find_newest()
        if position > newest:
            facts = {"position": str(position), "newest": str(newest)}
            raise RpcError.of_rule("operations", "POSITION_NOT_REACHED", facts)

    def _check_running(self) -> None:
        if self._stopping.is_set():
            raise RpcError("STOPPING", "the server stops", retry_after=1.0)

    async def _find_next(self) -> tuple[str, int]:
        """Return the incarnation and the settled position after the next poll, which all tails share."""
        if self._next is None or self._next.done():
            self._next = asyncio.create_task(self._poll())
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._next)

    async def _poll(self) -> tuple[str, int]:
        await asyncio.sleep(INTERVAL)
        return await self._settled.find()


class _Cursor:
    """The position up to which events were sent; with the events of a stream, also the version."""

    def __init__(self, reader: EventReader, filter_: EventFilter, after: int, content: Content) -> None:
        self._reader, self._content = reader, content
        self._filter = replace(filter_, after_position=after)
        self._position = after
        self._at = 0 if filter_.stream else after

    async def read(self, until: int, size: int) -> AsyncIterator[SentEvents]:
        """Yield the pages up to a settled position."""
        while self._position < until:
            page = await self._reader.read_page(self._filter, self._at, until, size, self._content)
            self._at = page.scanned_to
            if page.is_last:
                self._position = until
            elif not self._filter.stream:
                self._position = page.scanned_to
            elif page.events:
                self._position = page.events[-1].position
            yield SentEvents(page, self._position, until)


def _create_restored_error() -> RpcError:
    return RpcError.of_rule("operations", "EVENTS_RESTORED", {})
