"""A stretch of work that rests on one filling of the store, one epoch of the stream and one reader.

Each step is: take a batch, and bring the views up to it together with progress. A kill anywhere repeats the
batch or does not, and nothing is lost or done twice.
"""

from collections.abc import Mapping
from time import monotonic, time

from contracts import streams
from projector.checkpoints import Checkpoints
from projector.ports import BuildSuperseded, Feed, Reader, Store
from projector.writer import Writer
from runtime.jetstream import Message, StreamIdentity

BATCH = 500
"""Events in a batch, at most."""
WAIT = 0.25
"""Seconds that a reader waits for events before the session looks around."""
LOOK = 0.5
"""Seconds between looks at which stream it is, and whether all of it was read."""
ASK = 2.0
"""Seconds between two questions to the server what it holds for this reader, once the reader has caught up:
one for each partition, while under traffic the batches tell as much of those that are busy."""
REPLAYS = 20
"""Parked aggregates that are tried again between two batches, at most."""


class Session:
    """Works off what a reader returns until something that the session rests on has changed.

    Args:
        writer: applies events to views.
        store: where progress is kept.
        feed: what the reader reads.
        identity: which stream that is.
        progress: where the reader began.
        reader: of the partitions that progress speaks of.
    """

    def __init__(
        self,
        writer: Writer,
        store: Store,
        feed: Feed,
        identity: StreamIdentity,
        checkpoints: Checkpoints,
        reader: Reader,
    ) -> None:
        self._writer = writer
        self._store = store
        self._feed = feed
        self._identity = identity
        self._progress = checkpoints
        self._reader = reader
        self._looked = 0.0
        self._asked = 0.0
        self._as_of: dict[int, int] = {}
        self._target: int | None = None
        self._arrived: frozenset[int] = frozenset()
        self._all_drained_at: int | None = None

    async def step(self) -> None:
        """Do one batch, and whatever else is due.

        Raises:
            Superseded: the store or the stream is not what it was.
            ReaderLost: messages may be missing.
        """
        messages = await self._reader.batch(BATCH, WAIT)
        events = (self._feed.event_of(message) for message in messages)
        last = {streams.partition_of_subject(message.subject): message for message in messages}
        as_of = self._as_of | self._published(last)
        reached = {partition: message.sequence for partition, message in last.items()}
        advances = self._progress.advances(reached, also=as_of)
        await self._writer.apply((event for event in events if event is not None), advances, as_of)
        self._progress.moved(advances)
        for view_id, parked in self._writer.schedule.due(_now(), REPLAYS):
            await self._writer.replay(view_id, parked.stream)
        self._as_of = await self._look()

    def _published(self, last: Mapping[int, Message]) -> dict[int, int]:
        """Return, of partitions that have caught up before, when what they hold by now was published."""
        if self._target is not None:
            self._arrived |= {p for p, message in last.items() if message.sequence >= self._target}
        return {
            partition: int(message.published_at.timestamp() * 1000)
            for partition, message in last.items()
            if partition in self._arrived and message.published_at is not None
        }

    async def _look(self) -> dict[int, int]:
        """Notice another stream; return the partitions that hold everything, as of now.

        Nothing counts before the stream was filled, and a partition has caught up once it has read what the
        stream held then.
        """
        if monotonic() - self._looked < LOOK:
            return {}
        self._looked, now = monotonic(), _now()
        found, was = await self._feed.identity(), self._identity
        if found is None or (found.epoch, found.incarnation) != (was.epoch, was.incarnation):
            raise BuildSuperseded("the stream is another one")
        if not found.complete:
            return {}
        self._target = self._target if self._target is not None else found.last_sequence
        drained = await self._drained(found.last_sequence)
        self._arrived |= drained
        return dict.fromkeys(drained, now)

    async def _drained(self, last_sequence: int) -> frozenset[int]:
        """Return the partitions that were read to their ends; nothing is asked where nothing came since."""
        partitions = frozenset(self._progress.starts)
        if last_sequence == self._all_drained_at:
            return partitions
        if self._arrived == partitions and monotonic() - self._asked < ASK:
            return frozenset()
        self._asked = monotonic()
        drained = await self._reader.drained()
        self._all_drained_at = last_sequence if drained == partitions else None
        return drained


def _now() -> int:
    """Return milliseconds since 1970."""
    return int(time() * 1000)
