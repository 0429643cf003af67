"""A stretch of work that rests on one filling of the store, one epoch of the stream and one reader.

Each step is: take a batch, bring the views up to it, then say so as progress. A kill anywhere repeats the
batch, and nothing is lost or done twice by that.
"""

from collections.abc import Sequence
from time import monotonic, time

from projector.feed import event_of
from projector.ports import Feed, Reader, Store, Superseded
from projector.progress import Progress
from projector.writer import Writer
from runtime import streams
from runtime.jetstream import Message, StreamIdentity

BATCH = 500
"""Events in a batch, at most."""
WAIT = 0.25
"""Seconds that a reader waits for events before the session looks around."""
LOOK = 0.5
"""Seconds between looks at which stream it is, and whether all of it was read."""
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
        progress: Progress,
        reader: Reader,
    ) -> None:
        self._writer = writer
        self._store = store
        self._feed = feed
        self._identity = identity
        self._progress = progress
        self._reader = reader
        self._target = identity.last_sequence if identity.filled else None
        self._arrived = False
        self._looked = monotonic()
        self._asked = 0.0

    async def step(self) -> None:
        """Do one batch, and whatever else is due.

        Raises:
            Superseded: the store or the stream is not what it was.
            ReaderLost: messages may be missing.
        """
        await self._look()
        messages = await self._reader.batch(BATCH, WAIT)
        await self._writer.apply(
            event
            for message in messages
            if self._progress.lacks(streams.partition_of_subject(message.subject), message.sequence)
            and (event := event_of(message)) is not None
        )
        for view_id, parked in self._writer.schedule.due(_now(), REPLAYS):
            await self._writer.replay(view_id, parked.stream)
        moves = self._progress.moves(messages[-1].sequence if messages else self._progress.reached)
        await self._store.advance(moves, await self._as_of(messages))
        self._progress.moved(moves)

    async def _look(self) -> None:
        """Notice another stream, and that this one has been filled."""
        if monotonic() - self._looked < LOOK:
            return
        self._looked = monotonic()
        now, was = await self._feed.identity(), self._identity
        if now is None or (now.epoch, now.incarnation) != (was.epoch, was.incarnation):
            raise Superseded("the stream is another one")
        if self._target is None and now.filled:
            self._target = now.last_sequence

    async def _as_of(self, messages: Sequence[Message]) -> int | None:
        """Return up to when the views hold all that was published, in milliseconds; None if unknown.

        Nothing counts before the stream was filled and everything that it then held was read.
        """
        if self._target is None:
            return None
        if messages:
            last = messages[-1]
            self._arrived = self._arrived or last.sequence >= self._target
            return int(last.published_at.timestamp() * 1000) if self._arrived and last.published_at else None
        if monotonic() - self._asked < LOOK:
            return None
        self._asked, now = monotonic(), _now()
        drained = await self._reader.is_drained()
        self._arrived = self._arrived or drained
        return now if drained else None


def _now() -> int:
    """Return milliseconds since 1970."""
    return int(time() * 1000)
