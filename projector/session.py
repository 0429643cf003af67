"""A session: batches of one reader, applied to one build of the views while the event stream stays the same.

How it works. `step` reads a batch, writes the views and the new checkpoints in one call, and compares the
stream with the one that the session began with. A batch whose handlers take longer than MAX_FOLD_TIME is
applied in smaller parts, so that slow handlers delay no lease, health check or other projection. Parked
aggregates are replayed beside it (replayer.py), so that no batch waits for them. The session ends with an
exception as soon as the build, a checkpoint or the stream has changed; the runner then starts a new session
from the stored checkpoints. A kill at any point repeats one batch at most, and the writer ignores events that
a view already includes.

The session also determines `as_of`: for each partition, the time up to which the views include all published
events. A partition gets a time once it has caught up, that is, once it has read up to the last sequence that
the complete stream had at the first check. From then on each of its batches, and each check that finds it
drained, renews the time. The store marks the projection ready when all partitions have one.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice
from math import inf
from time import monotonic

from contracts import streams
from projector import clock
from projector.checkpoints import Checkpoints
from projector.ports import BuildSuperseded, EventFeed, EventReader, Store
from projector.projection import OutOfTime
from projector.writer import Writer
from runtime.jetstream import Message, StreamIdentity

BATCH_SIZE = 500
"""Events in a batch, at most."""
MAX_FOLD_TIME = 0.1
"""Seconds that the handlers of a batch may take before it is applied in smaller parts."""
MAX_WAIT = 0.25
"""Seconds that a reader waits for the first event of a batch."""
STREAM_CHECK_INTERVAL = 0.5
"""Seconds between checks of the stream's identity and of the partitions' ends."""
DRAIN_CHECK_INTERVAL = 2.0
"""Seconds between drain checks once all partitions have caught up. A check costs one request per partition,
and under traffic the batches already set the times of the busy partitions."""


class Session:
    """Applies the batches of one reader until the build, the stream or a checkpoint has changed.

    Args:
        writer: applies events to views.
        store: the views and checkpoints.
        feed: the feed that the reader belongs to.
        identity: the stream at the start of the session.
        checkpoints: the positions at which the reader began.
        reader: reads the partitions of `checkpoints`.
    """

    def __init__(
        self,
        writer: Writer,
        store: Store,
        feed: EventFeed,
        identity: StreamIdentity,
        checkpoints: Checkpoints,
        reader: EventReader,
    ) -> None:
        self._writer = writer
        self._store = store
        self._feed = feed
        self._identity = identity
        self._checkpoints = checkpoints
        self._reader = reader
        self._messages: deque[Message] = deque()
        """Messages that were read and are not applied."""
        self._size = BATCH_SIZE
        """Messages that are applied at once, at most."""
        self._last_stream_check = 0.0
        self._last_drain_check = 0.0
        self._as_of: dict[int, int] = {}
        self._catch_up_target: int | None = None
        self._caught_up: frozenset[int] = frozenset()
        self._all_drained_at: int | None = None

    async def step(self) -> None:
        """Apply one batch, and check the stream.

        Raises:
            BuildSuperseded: the build, a checkpoint or the stream has changed.
            ReaderLost: the reader may have missed messages.
        """
        if not self._messages:
            self._messages.extend(await self._reader.read_batch(BATCH_SIZE, MAX_WAIT))
        messages = list(islice(self._messages, self._size))
        try:
            seconds = await self._apply(messages, MAX_FOLD_TIME if len(messages) > 1 else inf)
        except OutOfTime:
            self._size = max(1, len(messages) // 4)
            await asyncio.sleep(0)
        else:
            for _ in messages:
                self._messages.popleft()
            affordable = int(MAX_FOLD_TIME * len(messages) / max(seconds, 1e-9)) if messages else BATCH_SIZE
            self._size = max(1, min(BATCH_SIZE, 2 * self._size, affordable))
        self._as_of = await self._check_stream()

    async def _apply(self, messages: Sequence[Message], max_seconds: float) -> float:
        """Write the views and checkpoints after these messages; return the seconds that the handlers took.

        Raises:
            OutOfTime: the handlers take longer than `max_seconds`.
        """
        events = (self._feed.decode(message) for message in messages)
        last = {streams.partition_of_subject(message.subject): message for message in messages}
        as_of = self._as_of | self._get_published_times(last)
        sequences = {partition: message.sequence for partition, message in last.items()}
        # A partition with a time but no message is listed too: its checkpoint is compared, not advanced.
        advances = self._checkpoints.plan_advances(sequences, unchanged=as_of)
        pending = (event for event in events if event is not None)
        seconds = await self._writer.apply(pending, advances, as_of, max_seconds)
        self._checkpoints.record_advances(advances)
        return seconds

    def _get_published_times(self, last: Mapping[int, Message]) -> dict[int, int]:
        """Return the publishing time, in ms, of the last message of each partition that has caught up."""
        if self._catch_up_target is not None:
            self._caught_up |= {p for p, message in last.items() if message.sequence >= self._catch_up_target}
        return {
            partition: int(message.published_at.timestamp() * 1000)
            for partition, message in last.items()
            if partition in self._caught_up and message.published_at is not None
        }

    async def _check_stream(self) -> dict[int, int]:
        """Check that the stream is the same; return the time of this check for each drained partition."""
        if monotonic() - self._last_stream_check < STREAM_CHECK_INTERVAL:
            return {}
        # The time is taken before the requests, so that no event published meanwhile is covered by it.
        self._last_stream_check, now = monotonic(), clock.read_milliseconds()
        current, expected = await self._feed.read_identity(), self._identity
        if current is None or (current.epoch, current.incarnation) != (expected.epoch, expected.incarnation):
            raise BuildSuperseded("the stream was replaced")
        # While the relay republishes the history, a drained partition may still lack old events. So no
        # partition gets a time before the stream is complete, and `ready` needs the times of all partitions.
        if not current.complete:
            return {}
        if self._catch_up_target is None:
            self._catch_up_target = current.last_sequence
        if self._messages:  # the reader counts them as read, and they are not applied
            return {}
        drained_partitions = await self._fetch_drained(current.last_sequence)
        self._caught_up |= drained_partitions
        return dict.fromkeys(drained_partitions, now)

    async def _fetch_drained(self, last_sequence: int) -> frozenset[int]:
        """Return the partitions that were read to their ends; none between two drain checks."""
        partitions = frozenset(self._checkpoints.starts)
        if last_sequence == self._all_drained_at:  # nothing was published since: no requests needed
            return partitions
        if self._caught_up == partitions and monotonic() - self._last_drain_check < DRAIN_CHECK_INTERVAL:
            return frozenset()
        self._last_drain_check = monotonic()
        drained_partitions = await self._reader.fetch_drained_partitions()
        self._all_drained_at = last_sequence if drained_partitions == partitions else None
        return drained_partitions
