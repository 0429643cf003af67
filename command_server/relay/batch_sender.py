"""Divides events into batches that the server accepts, and notices a stream that stores nothing."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Protocol

from command_server.relay.event_stream import EventStream
from command_server.relay.outbox import Outbox
from command_server.relay.outbox_rows import RelayState
from contracts.envelope import RecordedEvent
from runtime.jetstream import BatchIncomplete, Fenced
from runtime.process import logs

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Event data per batch. A single larger event is a batch of its own."""
MAX_FAILURES = 6
"""Failed publications in a row after which the relay checks whether the stream can be written. After a write
error, for example on a full disk, NATS stores nothing in the stream until it restarts; other streams work
again as soon as there is room. It does not answer a lone message then, and takes the second one of a batch
for one that does not follow the stream's end."""

Batches = AsyncIterator[tuple[Sequence[RecordedEvent], int]]

log = logs.get_logger(__name__)


class OutOfSync(Exception):
    """The stream or the relay's state differs from the relay's expectation; the relay must recover."""


class Publisher(Protocol):
    """Publishes fenced batches, as `EventStream.publish` does."""

    async def publish(self, epoch: str, events: Sequence[RecordedEvent], after: int) -> int:
        """Publish the events and return the sequence of the last one."""


class BatchSender:
    """Publishes to the stream for the relay and its recovery.

    Args:
        outbox: the source of the events.
        stream: the destination.
        publisher: the stream, or a decorator that observes events published for the first time.
    """

    def __init__(self, outbox: Outbox, stream: EventStream, publisher: Publisher) -> None:
        self._outbox = outbox
        self._stream = stream
        self._publisher = publisher
        self._failures = 0

    def send(self, state: RelayState, events: Sequence[RecordedEvent], after: int) -> Batches:
        """Publish events for the first time, and yield each batch with the sequence of its last event.

        Args:
            state: the relay's state as it is in PostgreSQL.
            events: in order.
            after: the stream's last sequence.

        Raises:
            MessageTooLarge: the server refuses an event because of its size; all before it were yielded.
        """
        return self._send(self._publisher, state, events, after)

    def send_again(self, state: RelayState, events: Sequence[RecordedEvent], after: int) -> Batches:
        """Publish events as `send` does, unobserved, since they were published before."""
        return self._send(self._stream, state, events, after)

    async def _send(
        self, publisher: Publisher, state: RelayState, events: Sequence[RecordedEvent], after: int
    ) -> Batches:
        accepted = await self._stream.count_accepted(events)
        for batch in _split(events[:accepted]):
            after = await self._publish(publisher, state, batch, after)
            yield batch, after
        if accepted < len(events):
            self._stream.refuse(events[accepted])

    async def _publish(
        self, publisher: Publisher, state: RelayState, batch: Sequence[RecordedEvent], after: int
    ) -> int:
        try:
            last = await publisher.publish(state.epoch, batch, after)
        except (TimeoutError, Fenced, BatchIncomplete):
            self._failures += 1
            if self._failures >= MAX_FAILURES and await self._stores_nothing(after):
                log.error("Stream stores nothing; recreating", failures=self._failures)
                self._failures = 0
                await self.recreate_stream(state)
            raise
        self._failures = 0
        return last

    async def _stores_nothing(self, after: int) -> bool:
        """Return whether the stream still ends before the failed batch, though JetStream can store."""
        stream = await self._stream.read_identity()
        return stream is not None and stream.last_sequence == after and await self._stream.can_store()

    async def recreate_stream(self, state: RelayState) -> None:
        """Replace the stream by an empty one.

        Args:
            state: the relay's state as it is in PostgreSQL.

        Raises:
            OutOfSync: another relay has begun an epoch or marked events.
        """
        # If another relay was active since this one read the state, the stream may be whole by now.
        if await self._outbox.read_state() != state:
            raise OutOfSync("another relay is active")
        await self._stream.recreate(state.incarnation)


def _split(events: Sequence[RecordedEvent]) -> Iterator[Sequence[RecordedEvent]]:
    """Split events into batches of at most MAX_BATCH_BYTES of data, or of a single event."""
    start = size = 0
    for index, event in enumerate(events):
        size += len(event.data)
        if size > MAX_BATCH_BYTES and index > start:
            yield events[start:index]
            start, size = index, len(event.data)
    if start < len(events):
        yield events[start:]
