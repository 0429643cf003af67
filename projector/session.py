"""A session: batches of one reader, applied to one build of the views while the event stream stays the same.

How it works. `step` reads messages, applies them in batches, and compares the stream with the one that the
session began with. A batch is one write, of its views and the new checkpoints. While it is on its way, the
next batch is read and folded on its result; no other write of the session begins before its end. A batch
whose handlers take longer than MAX_FOLD_TIME is applied in smaller parts, so that slow handlers delay no
lease, health check or other projection. Parked aggregates are replayed beside it (replayer.py), so that no
batch waits for them. The session ends with an exception as soon as the build, a checkpoint or the stream has
changed; the runner then starts a new session from the stored checkpoints. A kill at any point repeats one
batch at most, and the writer ignores events that a view already includes.

The session also determines `as_of`: for each partition, the time up to which the views include all committed
events. The stream is checked once for all projections of the process (`SharedReader`). A check takes the last
reply of the relay (`PublicationClock`): the events committed before its moment are in the stream, up to the
sequence that the stream has then. A partition gets that time once the session has applied everything up to
that sequence (catch_up.py). After each check the session writes how far it has come in all partitions, also
in those without events. The store marks the projection ready when all partitions have a time; it is UNKNOWN
where no relay has replied yet.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import chain, islice
from math import inf
from time import perf_counter

from contracts.envelope import RecordedEvent
from projector import clock
from projector.catch_up import UNKNOWN, CatchUp
from projector.checkpoints import Checkpoints
from projector.ports import BuildSuperseded, EventFeed, EventReader
from projector.projection import OutOfTime
from projector.records import FoldedBatch
from projector.writer import NO_EVENTS, Writer
from runtime.jetstream import EventMessage, Publication, StreamIdentity
from runtime.process.lifecycle import cancel_and_wait

READ_SIZE = 1_000
"""Messages that are read at once, at most."""
BATCH_SIZE = 250
"""Messages in a batch, at most."""
MAX_BATCHES = 4
"""Batches that are applied between two checks of the leases and the stream, at most."""
SEND_TICKS = 2
"""Iterations of the event loop after which a write has left. The fold of the next batch then occupies it."""
APART_SIZE = 20
"""Events that a session applies at once while it is behind and others, which are not, get events. It then
pauses for as long as that took: a large batch holds the event loop and Redis up, and the views of the others
would be late."""
MAX_PAUSE = 0.1
"""Seconds of such a pause, at most: Redis may have been slow for another reason."""
MAX_FOLD_TIME = 0.1
"""Seconds that the handlers of a batch may take before it is applied in smaller parts."""
MAX_WAIT = 0.5
"""Seconds that a reader waits for the first event of a batch, and between looks at the leases."""


class Session:
    """Applies the batches of one reader until the build, the stream or a checkpoint has changed.

    Args:
        writer: applies events to views.
        feed: the feed that the reader belongs to.
        identity: the stream at the start of the session.
        checkpoints: the positions at which the reader began.
        reader: reads the partitions of `checkpoints`.
    """

    def __init__(
        self,
        writer: Writer,
        feed: EventFeed,
        identity: StreamIdentity,
        checkpoints: Checkpoints,
        reader: EventReader,
    ) -> None:
        self._writer = writer
        self._feed = feed
        self._identity = identity
        self._checkpoints = checkpoints
        self._reader = reader
        self._messages: deque[EventMessage] = deque()
        """Messages that were read and are not applied."""
        self._size = BATCH_SIZE
        """Messages that are applied at once, at most."""
        self._writing: asyncio.Task[bool] | None = None
        """The write that is on its way, and began in this step or in an earlier one."""
        self._applied: Sequence[EventMessage] = ()
        """Those whose write is on its way."""
        self._has_written = False
        self._last_check = feed.get_check()  # which may precede the session's identity
        self._catch_up = CatchUp()

    async def step(self) -> int:
        """Apply some batches, and check the stream; return the number of messages applied.

        Raises:
            BuildSuperseded: the build, a checkpoint or the stream has changed.
            ReaderLost: the reader may have missed messages.
        """
        if self._writing is not None and self._writing.done():
            await self.finish()  # raises now if it has failed, even if no event follows
        if not self._messages:
            self._messages.extend(await self._reader.read_batch(READ_SIZE, MAX_WAIT))
        apart, began, before = self._reader.reads_apart(), perf_counter(), len(self._messages)
        await self._apply_batches(*((1, APART_SIZE) if apart else (MAX_BATCHES, BATCH_SIZE)))
        await self._check_stream()
        applied = before - len(self._messages)
        if before and apart:
            await self.finish()
            await asyncio.sleep(min(MAX_PAUSE, perf_counter() - began))
        return applied

    def find_oldest(self) -> datetime | None:
        """Return when the oldest event that was read and is not written was published; in any thread."""
        oldest = next(chain(self._applied, self._messages), None)
        return None if oldest is None else oldest.published_at

    @property
    def has_succeeded(self) -> bool:
        """Whether a write has taken effect, or none is on its way that may still fail."""
        return self._has_written or self._writing is None

    async def finish(self) -> bool:
        """Wait for the write that is on its way; return what `Writer.write` does.

        Raises:
            BuildSuperseded: the build or a checkpoint has changed.
        """
        writing, self._writing = self._writing, None
        return writing is None or await writing

    async def settle(self) -> None:
        """Wait until the write that is on its way has ended, whether or not it takes effect.

        Redis replies, or its connection ends, within some seconds. A session that began before would find
        checkpoints that this write changes.
        """
        if self._writing is not None:
            await asyncio.wait({self._writing})

    async def close(self) -> None:
        """End the write that is on its way, whether or not it has taken effect."""
        if self._writing is not None:
            await cancel_and_wait(self._writing)

    async def _apply_batches(self, count: int, max_size: int) -> None:
        """Apply messages in batches. Each is folded while the one before it is written."""
        for _ in range(count):
            messages = list(islice(self._messages, min(self._size, max_size)))
            batch = await self._fold_in_time(messages) if messages else None
            if batch is None:
                return
            if not await self.finish():
                self._writer.discard(batch)
                batch = await self._writer.fold(_list_events(messages))
            self._applied = messages
            for _ in messages:
                self._messages.popleft()
            sequences = {message.partition: message.sequence for message in messages}
            if not self._messages and len(messages) < BATCH_SIZE:
                await self._write(batch, sequences)  # nothing to fold meanwhile, and a task costs more
                return
            self._writing = asyncio.create_task(self._write(batch, sequences))
            for _ in range(SEND_TICKS):
                await asyncio.sleep(0)

    async def _fold_in_time(self, messages: Sequence[EventMessage]) -> FoldedBatch | None:
        """Fold messages; if the handlers take too long, return None, and make the next batch smaller."""
        try:
            max_seconds = MAX_FOLD_TIME if len(messages) > 1 else inf
            batch = await self._writer.fold(_list_events(messages), max_seconds)
        except OutOfTime:
            self._size = max(1, len(messages) // 4)
            await asyncio.sleep(0)
            return None
        affordable = int(MAX_FOLD_TIME * len(messages) / max(batch.seconds, 1e-9))
        self._size = max(1, min(BATCH_SIZE, 2 * self._size, affordable))
        return batch

    async def _write(self, batch: FoldedBatch, positions: Mapping[int, int]) -> bool:
        """Write a batch and the checkpoints at these positions; return what `Writer.write` does."""
        advances = self._checkpoints.plan_advances(positions)
        was_current = await self._writer.write(batch, advances, self._catch_up.reach(positions))
        self._checkpoints.record_advances(advances)
        self._has_written, self._applied = True, ()
        return was_current

    async def _check_stream(self) -> None:
        """After each check, compare the stream, and write how far the session has come."""
        check = self._feed.get_check()
        if check is None or check is self._last_check:
            return
        self._last_check = check
        current, expected = check.identity, self._identity
        if current is None or (current.epoch, current.incarnation) != (expected.epoch, expected.incarnation):
            raise BuildSuperseded("the stream was replaced")
        # While the relay republishes the history, a partition that was read to its end may still lack old
        # events. So none gets a time before the stream is complete, and `ready` needs the times of all.
        if current.complete:
            self._catch_up.add_target(current.last_sequence, _get_confirmed_time(check.publication, current))
        if not self._messages:  # the reader counts them as returned, and they are not applied
            await self.finish()
            await self._write(NO_EVENTS, self._reader.read_positions())


def _list_events(messages: Iterable[EventMessage]) -> Iterable[RecordedEvent]:
    return (event for message in messages if (event := message.event) is not None)


def _get_confirmed_time(publication: Publication | None, stream: StreamIdentity) -> int:
    """Return the time, in ms since 1970, before which all committed events are in the stream; or UNKNOWN.

    A stream that has not reached the confirmed sequence lost messages; the relay publishes them again.
    """
    if publication is None or publication.epoch != stream.epoch:
        return UNKNOWN
    if stream.last_sequence < publication.sequence:
        return UNKNOWN
    return clock.to_milliseconds(publication.asked_at)
