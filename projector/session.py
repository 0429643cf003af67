"""A session: batches of one reader, applied to one build of the views while the event stream stays the same.

How it works. `step` reads a batch, writes the views and the new checkpoints in one call, and compares the
stream with the one that the session began with. A batch whose handlers take longer than MAX_FOLD_TIME is
applied in smaller parts, so that slow handlers delay no lease, health check or other projection. Parked
aggregates are replayed beside it (replayer.py), so that no batch waits for them. The session ends with an
exception as soon as the build, a checkpoint or the stream has changed; the runner then starts a new session
from the stored checkpoints. A kill at any point repeats one batch at most, and the writer ignores events that
a view already includes.

The session also determines `as_of`: for each partition, the time up to which the views include all committed
events. A check of the stream takes the last reply of the relay (`PublicationClock`): the events committed
before its moment are in the stream, up to the sequence that the stream has then. A partition gets that time
once it has applied messages up to that sequence, or is found drained (catch_up.py). The store marks the
projection ready when all partitions have a time; it is UNKNOWN where no relay has replied yet.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice
from math import inf
from time import monotonic

from contracts import streams
from projector import clock
from projector.catch_up import UNKNOWN, CatchUp
from projector.checkpoints import Checkpoints
from projector.ports import (
    NO_PARTITIONS,
    BuildSuperseded,
    EventFeed,
    EventReader,
    GetPublication,
    Store,
)
from projector.projection import OutOfTime
from projector.writer import Writer
from runtime.jetstream import Message, Publication, StreamIdentity

BATCH_SIZE = 500
"""Events in a batch, at most."""
MAX_FOLD_TIME = 0.1
"""Seconds that the handlers of a batch may take before it is applied in smaller parts."""
MAX_WAIT = 0.25
"""Seconds that a reader waits for the first event of a batch."""
STREAM_CHECK_INTERVAL = 0.5
"""Seconds between checks of the stream's identity and of the partitions' ends, at most: the next reply of the
relay, of which there are two in a second, begins one at once."""
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
        get_publication: returns the last reply of the relay; None if there was none.
    """

    def __init__(
        self,
        writer: Writer,
        store: Store,
        feed: EventFeed,
        identity: StreamIdentity,
        checkpoints: Checkpoints,
        reader: EventReader,
        get_publication: GetPublication,
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
        self._get_publication = get_publication
        self._used_publication: Publication | None = None
        self._catch_up = CatchUp()
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
        if not messages:
            await self._apply((), inf, await self._check_stream())
            return
        try:
            seconds = await self._apply(messages, MAX_FOLD_TIME if len(messages) > 1 else inf)
        except OutOfTime:
            self._size = max(1, len(messages) // 4)
            await asyncio.sleep(0)
        else:
            for _ in messages:
                self._messages.popleft()
            affordable = int(MAX_FOLD_TIME * len(messages) / max(seconds, 1e-9))
            self._size = max(1, min(BATCH_SIZE, 2 * self._size, affordable))
        if drained := await self._check_stream():
            await self._apply((), inf, drained)

    async def _apply(
        self, messages: Sequence[Message], max_seconds: float, drained: Mapping[int, int] = NO_PARTITIONS
    ) -> float:
        """Write the views and checkpoints after these messages; return the seconds that the handlers took.

        Args:
            messages: may be empty.
            max_seconds: that the handlers may take.
            drained: the times of drained partitions.

        Raises:
            OutOfTime: the handlers take longer than `max_seconds`.
        """
        events = (self._feed.decode(message) for message in messages)
        last = {streams.partition_of_subject(message.subject): message for message in messages}
        sequences = {partition: message.sequence for partition, message in last.items()}
        as_of = {**self._catch_up.reach(sequences), **drained}
        # A partition with a time but no message is listed too: its checkpoint is compared, not advanced.
        advances = self._checkpoints.plan_advances(sequences, unchanged=as_of)
        pending = (event for event in events if event is not None)
        seconds = await self._writer.apply(pending, advances, as_of, max_seconds)
        self._checkpoints.record_advances(advances)
        return seconds

    async def _check_stream(self) -> dict[int, int]:
        """Check that the stream is the same, and add a target; return the times of drained partitions."""
        # The reply is taken before the requests, so that the stream has everything that it confirms.
        publication = self._get_publication()
        is_due = monotonic() - self._last_stream_check >= STREAM_CHECK_INTERVAL
        if not is_due and publication is self._used_publication:
            return {}
        self._last_stream_check, self._used_publication = monotonic(), publication
        current, expected = await self._feed.read_identity(), self._identity
        if current is None or (current.epoch, current.incarnation) != (expected.epoch, expected.incarnation):
            raise BuildSuperseded("the stream was replaced")
        # While the relay republishes the history, a drained partition may still lack old events. So no
        # partition gets a time before the stream is complete, and `ready` needs the times of all partitions.
        if not current.complete:
            return {}
        self._catch_up.add_target(current.last_sequence, _get_confirmed_time(publication, current))
        if self._messages:  # the reader counts them as read, and they are not applied
            return {}
        return self._catch_up.drain(await self._fetch_drained(current.last_sequence))

    async def _fetch_drained(self, last_sequence: int) -> frozenset[int]:
        """Return the partitions that were read to their ends; none between two drain checks."""
        partitions = frozenset(self._checkpoints.starts)
        if last_sequence == self._all_drained_at:  # nothing was published since: no requests needed
            return partitions
        if (
            self._catch_up.caught_up == partitions
            and monotonic() - self._last_drain_check < DRAIN_CHECK_INTERVAL
        ):
            return frozenset()
        self._last_drain_check = monotonic()
        drained_partitions = await self._reader.fetch_drained_partitions()
        self._all_drained_at = last_sequence if drained_partitions == partitions else None
        return drained_partitions


def _get_confirmed_time(publication: Publication | None, stream: StreamIdentity) -> int:
    """Return the time, in ms since 1970, before which all committed events are in the stream; or UNKNOWN.

    A stream that has not reached the confirmed sequence lost messages; the relay publishes them again.
    """
    if publication is None or publication.epoch != stream.epoch:
        return UNKNOWN
    if stream.last_sequence < publication.sequence:
        return UNKNOWN
    return clock.to_milliseconds(publication.asked_at)
