"""The feeds of one saga and stream type: their cursors in the shared reading, and their checkpoints."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from contracts.envelope import RecordedEvent
from process_manager.feeds.feed_source import FeedSource, Source
from process_manager.postgres.due_work import Checkpoint, Feed
from process_manager.saga import Saga
from runtime.jetstream import (
    Cursor,
    EventMessage,
    ReaderLost,
    read_stream_identity,
)
from runtime.process import logs
from runtime.process.wakeups import wait_for_any

MAX_BATCH = 500
"""Events that are delivered at once."""
MAX_DISTANCE = 2_000
"""Messages behind the end of the stream up to which feeds share a cursor; the shared log has so many."""
MAX_WAIT = 1.0
"""Seconds between two checks whether the leases have expired, which nobody reports."""
BATCH_INTERVAL = 0.2
"""Seconds between two deliveries of events that can wait, at least."""
REJOIN_INTERVAL = 5.0
"""Seconds after which a feed that has a cursor of its own may share one again."""
RESTART_INTERVAL = 0.25
"""Seconds before a cursor is opened again after an error, and between checks for a stream."""

Deliver = Callable[[Feed, Sequence[RecordedEvent], Checkpoint, Checkpoint], Awaitable[Collection[str]]]

log = logs.get_logger(__name__)


class DeliveryFailed(Exception):
    """Events of some feeds were not delivered.

    Args:
        errors: by partition.
    """

    def __init__(self, errors: Mapping[int, BaseException]) -> None:
        super().__init__("; ".join(f"partition {each}: {error!r}" for each, error in errors.items()))
        self.partitions = frozenset(errors)


class FeedGroup:
    """Consumes the feeds of one saga and stream type.

    Args:
        saga: the saga.
        stream_type: the type of the streams.
        source: of the events.
        begin: takes the moment at which the saga begins.
        deliver: delivers events of a feed, and returns the parked ones of their streams.
        batches: whether events wait for those that follow soon. All such groups deliver at the same moments.
    """

    def __init__(
        self,
        saga: Saga[Any],
        stream_type: str,
        source: Source,
        begin: Callable[[Saga[Any]], Awaitable[object]],
        deliver: Deliver,
        *,
        batches: bool = False,
    ) -> None:
        self._saga, self._stream_type, self._source = saga, stream_type, source
        self._feeds = FeedSource(saga.name, stream_type, source)
        self._begin, self._deliver, self._batches = begin, deliver, batches
        self._failures = logs.RepeatedErrors(
            log, "Event consumer failed; restarting", saga=saga.name, streamType=stream_type
        )
        self._partitions: frozenset[int] = frozenset()
        """Those whose feeds are consumed; none once their cursors have to end."""
        self._cursors: set[Cursor] = set()
        self._changed = asyncio.Event()
        self._ending = asyncio.Event()
        """Set once the cursors have to end."""
        self._has_caught_up = False
        self._waits_for_stream = False
        source.leases.on_change(self._changed.set)

    async def run(self, stopping: asyncio.Event) -> None:
        """Consume while partitions are leased, and begin again when others are, until the process stops."""
        while not stopping.is_set():
            leased = self._source.leases.partitions
            try:
                await self._consume(leased, stopping)
            except Exception as error:  # for example, an outage of PostgreSQL or NATS
                self._failures.report(error)
            if not self._has_caught_up and self._source.leases.partitions == leased:
                await wait_for_any(stopping, self._changed, timeout=RESTART_INTERVAL)

    async def _consume(self, partitions: frozenset[int], stopping: asyncio.Event) -> None:
        """Consume the feeds of these partitions until others are leased or the process stops."""
        self._partitions, self._has_caught_up = partitions, False
        self._ending.clear()
        if not partitions:
            return
        await self._begin(self._saga)
        if not (parts := await self._divide(partitions)):
            return
        async with asyncio.TaskGroup() as tasks:
            for part in parts:
                tasks.create_task(self._run_part(part, tasks, is_apart=part is not parts[0]))
            try:
                await self._wait_for_end(partitions, stopping)
            finally:
                self._partitions = frozenset()
                self._ending.set()
                for cursor in self._cursors:
                    cursor.arrived.set()

    async def _wait_for_end(self, partitions: frozenset[int], stopping: asyncio.Event) -> None:
        """Wait until other partitions are leased, the process stops, or a cursor has caught up."""
        while True:
            self._changed.clear()
            if self._source.leases.partitions != partitions or stopping.is_set() or self._has_caught_up:
                return
            await wait_for_any(stopping, self._changed, timeout=MAX_WAIT)  # a lease may also expire

    async def _divide(self, partitions: frozenset[int]) -> list[frozenset[int]]:
        """Return which partitions share cursors, first those near the end; none while there is no stream.

        A relay creates the stream, and may start after this process.
        """
        checkpoints = await self._feeds.read_checkpoints(partitions)
        identity = await read_stream_identity(self._source.connection.js)
        if identity is None:
            if not self._waits_for_stream:
                log.info("Waiting for the stream", saga=self._saga.name, streamType=self._stream_type)
            self._waits_for_stream = True
            return []
        self._waits_for_stream = False
        starts = self._feeds.find_starts(checkpoints, identity)
        near = {each for each, start in starts.items() if identity.last_sequence - start < MAX_DISTANCE}
        far = [frozenset({partition}) for partition in partitions - near]
        return [frozenset(near), *far] if near else far

    async def _run_part(self, part: frozenset[int], tasks: asyncio.TaskGroup, *, is_apart: bool) -> None:
        """Consume feeds by one cursor; those whose delivery fails go on by cursors of their own."""
        is_divided = True
        while part and part <= self._partitions:
            try:
                if not is_divided and len(part) > 1:
                    part = await self._divide_again(part, tasks)
                is_divided = True
                await self._follow(part, is_apart=is_apart)
            except Exception as error:  # must not stop the other feeds
                self._feeds.forget_positions(part)
                is_divided = False
                self._failures.report(error)
                if isinstance(error, DeliveryFailed) and len(part) > 1:
                    part -= error.partitions
                    for partition in error.partitions:
                        tasks.create_task(self._run_part(frozenset({partition}), tasks, is_apart=True))
                    continue
            else:
                return
            await asyncio.sleep(RESTART_INTERVAL)

    async def _divide_again(self, part: frozenset[int], tasks: asyncio.TaskGroup) -> frozenset[int]:
        """Return the feeds that are near the end without their positions; start the others apart.

        Raises:
            ReaderLost: there is no stream.
        """
        parts = await self._divide(part)
        if not parts:
            raise ReaderLost("there is no stream")
        for each in parts[1:]:
            tasks.create_task(self._run_part(each, tasks, is_apart=True))
        return parts[0]

    async def _follow(self, part: frozenset[int], *, is_apart: bool) -> None:
        """Deliver events from the checkpoints on, until the cursors have to end."""
        checkpoints = await self._feeds.read_checkpoints(part)
        identity = await read_stream_identity(self._source.connection.js)
        if identity is None:
            raise ReaderLost("there is no stream")
        await self._feeds.check_removed(checkpoints.values(), identity)
        await self._feeds.request_replays(part)
        starts = self._feeds.find_starts(checkpoints, identity)
        cursor = await self._source.reader.open(identity.epoch, starts, [self._stream_type])
        self._cursors.add(cursor)
        rejoins_at = monotonic() + REJOIN_INTERVAL
        try:
            while part <= self._partitions:
                if messages := await cursor.read_batch(MAX_BATCH, MAX_WAIT):
                    if self._batches and len(messages) < MAX_BATCH:
                        messages += await self._read_more(cursor, MAX_BATCH - len(messages))
                    await self._deliver_all(identity.epoch, messages, checkpoints)
                elif positions := cursor.read_positions():
                    self._feeds.note_positions(identity.epoch, positions)
                    if is_apart and monotonic() > rejoins_at:
                        self._rejoin(min(positions.values()), identity.last_sequence)
                self._failures.reset()
        finally:
            self._cursors.discard(cursor)
            await cursor.close()

    async def _read_more(self, cursor: Cursor, limit: int) -> Sequence[EventMessage]:
        """Return the messages until the next moment of delivery, or until the cursor has to end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(BATCH_INTERVAL - monotonic() % BATCH_INTERVAL):
                await self._ending.wait()
        return await cursor.read_batch(limit, 0.0)

    def _rejoin(self, position: int, end: int) -> None:
        """Let the feeds share a cursor again, since one that was apart has caught up."""
        if position >= end:
            self._has_caught_up = True
            self._changed.set()

    async def _deliver_all(
        self, epoch: str, messages: Sequence[EventMessage], checkpoints: dict[int, Checkpoint]
    ) -> None:
        """Deliver messages of several feeds together, and advance their checkpoints.

        Raises:
            DeliveryFailed: those of some feeds were not delivered.
        """
        by_partition: dict[int, list[EventMessage]] = {}
        for message in messages:
            by_partition.setdefault(message.partition, []).append(message)
        deliveries = (self._deliver_feed(epoch, own, checkpoints) for own in by_partition.values())
        results = await asyncio.gather(*deliveries, return_exceptions=True)
        errors = {
            partition: result
            for partition, result in zip(by_partition, results, strict=True)
            if isinstance(result, Exception)
        }
        if errors:
            raise DeliveryFailed(errors)

    async def _deliver_feed(
        self, epoch: str, messages: Sequence[EventMessage], checkpoints: dict[int, Checkpoint]
    ) -> None:
        partition = messages[0].partition
        feed, reached = self._feeds.name_feed(partition), (epoch, messages[-1].sequence)
        events = [event for message in messages if (event := message.event) is not None]
        parked = await self._deliver(feed, events, checkpoints[partition], reached)
        checkpoints[partition] = reached
        self._feeds.note_delivery(partition, messages[0].sequence)
        self._source.replayer.request(feed, parked)
