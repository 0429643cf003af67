"""The relay: publishes committed events to the JetStream stream, in order and each of them once.

How it works. After a start, a takeover, a timeout or any error the relay discards its memory and recovers:
it verifies that the stream belongs to this database and has no gaps, and recreates it otherwise; it publishes
again the tail that a power failure lost, under the old sequences; it marks events that were published but not
marked; and it builds a new stream from all earlier events. Then it publishes pending events: read a batch
from the outbox, publish it, mark it. Every batch names the epoch and the sequence that it follows, and every
mark compares the relay's state in PostgreSQL. A relay that was frozen and replaced can therefore neither
publish nor mark. Once per CHECK_INTERVAL the relay compares stream and state with its expectation, and
recovers if they differ.

An event that NATS refuses because of its size blocks the feed, since nothing may overtake it. Command servers
reject commands that would make one, so this needs a limit that was lowered. The relay shows it in its log and
its health, reads the limit again and again, and continues once it is raised.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from time import monotonic
from typing import NoReturn, Protocol

from command_server.relay.event_stream import (
    MAX_BATCH_SIZE,
    EventStream,
    MessageTooLarge,
    decode_event,
    is_copy,
)
from command_server.relay.outbox import Outbox, RelayState
from command_server.relay.outbox_floor import OutboxFloor
from command_server.relay.publication_requests import PublicationRequests
from contracts.envelope import RecordedEvent
from runtime.backoff import Backoff
from runtime.jetstream import Message, StreamIdentity
from runtime.process import logs

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Event data per batch. A single larger event is a batch of its own."""
POLL_INTERVAL = 0.25
"""Seconds between reads of an empty outbox if no notification arrives."""
CHECK_INTERVAL = 1.0
"""Seconds between checks of the stream and the relay's state."""
READ_TIMEOUT = 5.0
"""Seconds without a message after which reading the stream fails."""
MAX_TIMEOUTS = 3
"""Publications in a row without an answer after which the relay checks whether the stream can be written.
After a write error, for example on a full disk, NATS ignores all that is published to the stream until it
restarts; other streams work again as soon as there is room."""
INITIAL_PAUSE, MAX_PAUSE = 0.1, 2.0
"""Seconds before a restart: after the first error, and at most while errors continue."""
STABLE_AFTER = 5.0
"""Seconds without an error after which the next restart counts as the first one."""

log = logs.get_logger(__name__)


class OutOfSync(Exception):
    """The stream or the relay's state differs from the relay's expectation; the relay must recover."""


class Publisher(Protocol):
    """Publishes fenced batches, as `EventStream.publish` does."""

    async def publish(self, epoch: str, events: Sequence[RecordedEvent], after: int) -> int:
        """Publish the events and return the sequence of the last one."""


class Relay:
    """Publishes pending events while it leads.

    Args:
        outbox: the source.
        stream: the destination.
        publisher: the stream, or a decorator that observes events published for the first time.
    """

    def __init__(self, outbox: Outbox, stream: EventStream, publisher: Publisher) -> None:
        self._outbox = outbox
        self._stream = stream
        self._publisher = publisher
        self._state = RelayState("", "", 0)
        self._timeouts = 0
        self.blocked = False
        """Whether the next event is larger than NATS accepts."""

    async def lead(self) -> NoReturn:
        """Recover and publish until cancelled; restart after every error."""
        self.blocked = False  # what blocked an earlier term may be published by now
        backoff = Backoff(INITIAL_PAUSE, MAX_PAUSE)
        failures = logs.RepeatedErrors(log, "Relay failed; restarting")
        async with self._outbox:
            while True:
                started = monotonic()
                try:
                    await self._recover()
                    failures.reset()
                    await self._publish_pending()
                except MessageTooLarge as error:
                    self._report_blocked(error)
                except Exception as error:
                    failures.report(error)
                if monotonic() - started > STABLE_AFTER:
                    backoff.reset()
                await asyncio.sleep(backoff.next_pause())

    def _report_blocked(self, error: MessageTooLarge) -> None:
        if not self.blocked:
            log.error("Feed blocked by a large event", error=str(error))
        self.blocked = True

    def _report_continued(self) -> None:
        if self.blocked:
            log.info("Feed no longer blocked")
        self.blocked = False

    async def _recover(self) -> None:
        """Bring stream and marks into agreement."""
        stream = await self._ensure_stream()
        await self._republish_lost_tail(stream)
        await self._mark_published_tail(stream)
        if not stream.complete:
            await self._publish_history(stream)

    async def _ensure_stream(self) -> StreamIdentity:
        """Return the stream, recreated if it is unusable, and load the state that belongs to it."""
        self._state = state = await self._outbox.read_state()
        stream = await self._stream.read_identity()
        if stream is None or not _is_usable(stream, state):
            if stream is None and not state.epoch:
                log.info("Creating the first stream")
            else:
                log.warning("Stream unusable; recreating", stream=stream, state=state)
            await self._recreate_stream()
            stream = await self._stream.read_identity()
            if stream is None or not _is_usable(stream, state):
                raise OutOfSync("the stream was changed during recovery")
        if stream.epoch != state.epoch:
            # A new epoch: no event is marked as published to this stream, and its sequences begin at 1.
            self._state = await self._outbox.begin_epoch(state, stream.epoch)
        return stream

    async def _recreate_stream(self) -> None:
        """Replace the stream by an empty one.

        Raises:
            OutOfSync: another relay has begun an epoch or marked events.
        """
        # If another relay was active since this one read the state, the stream may be whole by now.
        if await self._outbox.read_state() != self._state:
            raise OutOfSync("another relay is active")
        await self._stream.recreate(self._state.incarnation)

    async def _republish_lost_tail(self, stream: StreamIdentity) -> None:
        """Publish again, under their old sequences, marked events that are missing at the end of the stream.

        NATS acknowledges messages before they are on disk, so a power failure can lose the last ones. Readers
        may have processed those already. The same events at the same sequences keep their checkpoints valid.
        """
        end, state = stream.last_sequence, self._state
        if end >= state.sequence:
            return
        lost_positions = await self._outbox.read_published_positions(stream.epoch, after=end)
        log.warning(
            "Stream lost events; republishing",
            first=end + 1,
            last=state.sequence,
            in_outbox=len(lost_positions),
        )
        if list(lost_positions) != list(range(end + 1, state.sequence + 1)):
            await self._recreate_stream()
            raise OutOfSync("the outbox no longer has all events that the stream has lost")
        positions = list(lost_positions.values())
        async for events in self._outbox.read_events(positions):
            async for batch in self._divide(events):
                end = await self._publish(self._stream, stream.epoch, batch, end)

    async def _mark_published_tail(self, stream: StreamIdentity) -> None:
        """Mark the events that the stream has after the last mark.

        They were published by a relay that failed before it could mark them.
        """
        if self._state.sequence >= stream.last_sequence:
            return
        reader = await self._stream.open_reader(stream.epoch, self._state.sequence + 1)
        try:
            while self._state.sequence < stream.last_sequence:
                messages = await reader.read_batch(MAX_BATCH_SIZE, READ_TIMEOUT)
                if not messages:
                    raise TimeoutError(f"no message within {READ_TIMEOUT} s although the stream has more")
                positions = await self._verify_messages(messages)
                self._state = await self._outbox.mark(self._state, positions, messages[-1].sequence)
        finally:
            await reader.close()

    async def _verify_messages(self, messages: Sequence[Message]) -> list[int]:
        """Return the positions of the messages' events.

        Each message must be the only one in this epoch for its event, and a copy of the recorded event.

        Raises:
            OutOfSync: a message violates this. If no relay has published it, the stream was recreated;
                otherwise another relay has marked it in the meantime.
        """
        events = [decode_event(message) for message in messages]
        positions = [event.position for event in events if event is not None]
        recorded_events = {
            event.position: event async for page in self._outbox.read_events(positions) for event in page
        }
        marked_positions = await self._outbox.find_marked(self._state.epoch, positions)
        for message, event in zip(messages, events, strict=True):
            if (
                event is None
                or event.position in marked_positions
                or not is_copy(event, recorded_events.get(event.position))
            ):
                # Raises OutOfSync if another relay has marked the message, which is no reason for an alarm.
                await self._recreate_stream()
                log.error(
                    "Unknown message in stream; recreating",
                    subject=message.subject,
                    sequence=message.sequence,
                )
                raise OutOfSync("the stream has a message that no relay has published")
            marked_positions.add(event.position)
        return positions

    async def _publish_history(self, stream: StreamIdentity) -> None:
        """Publish all events that are not pending, in order, after the last one; then the pending ones.

        A late commit at a low position is pending, and so is an event that readers of the previous stream may
        have seen, if its mark was lost. So the stream is complete only once it has these, too.
        """
        if not stream.has_history:  # afterwards the last event's position would not tell where to continue
            after = await self._stream.read_last_position(self._state.sequence)
            log.info("Stream build started", after=after)
            while True:
                end, events = await self._outbox.read_history(after, MAX_BATCH_SIZE)
                if end == after:
                    break
                await self._publish_and_mark(self._stream, events)
                after = end
            await self._stream.declare_history()
        has_more = True
        while has_more:
            events, has_more = await self._outbox.read_pending(0, MAX_BATCH_SIZE)
            await self._publish_and_mark(self._publisher, events)
        await self._stream.declare_complete()
        log.info("Stream build finished", events=self._state.sequence)

    async def _publish_pending(self) -> NoReturn:
        """Publish pending events as they are committed."""
        floor, published_to, checked_at = OutboxFloor(), 0, monotonic()
        requests = PublicationRequests()
        async with (
            self._stream.subscribe_notifications() as notified,
            self._stream.subscribe_recreation_requests(self._state.epoch) as recreation_requested,
            self._subscribe_requests(requests, notified),
        ):
            while True:
                notified.clear()  # before the read: a later commit sets it again
                requests.begin_read()
                events, is_full_batch = await self._outbox.read_pending(floor.position, MAX_BATCH_SIZE)
                if events:
                    await self._publish_and_mark(self._publisher, events)
                    # After a full batch more events may be pending above its last one, even if they are below
                    # positions that were published before.
                    published_to = (
                        events[-1].position if is_full_batch else max(published_to, events[-1].position)
                    )
                await self._reply_to(requests, events[-1].position if is_full_batch else None)
                if not events:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(POLL_INTERVAL):
                            await notified.wait()
                if monotonic() - checked_at >= CHECK_INTERVAL:
                    await self._check(recreation_requested)
                    floor.observe(published_to, monotonic(), await self._outbox.read_snapshot())
                    checked_at = monotonic()

    def _subscribe_requests(
        self, requests: PublicationRequests, notified: asyncio.Event
    ) -> AbstractAsyncContextManager[None]:
        """Receive the requests of readers; each lets the next read begin at once."""

        def receive(reply: str) -> None:
            requests.receive(reply)
            notified.set()

        return self._stream.subscribe_publication_requests(receive)

    async def _reply_to(self, requests: PublicationRequests, published_to: int | None) -> None:
        """Reply to the requests that are fulfilled after a read (`PublicationRequests.take_fulfilled`)."""
        for reply in requests.take_fulfilled(published_to):
            await self._stream.confirm_publication(reply, self._state.epoch, self._state.sequence)
        if requests.has_unbound:
            requests.bind(await self._outbox.read_last_position())

    async def _publish_and_mark(self, publisher: Publisher, events: Sequence[RecordedEvent]) -> None:
        async for batch in self._divide(events):
            last = await self._publish(publisher, self._state.epoch, batch, self._state.sequence)
            self._state = await self._outbox.mark(self._state, [event.position for event in batch], last)
        self._report_continued()

    async def _divide(self, events: Sequence[RecordedEvent]) -> AsyncIterator[Sequence[RecordedEvent]]:
        """Yield the events in batches, up to the first one that the server refuses.

        Raises:
            MessageTooLarge: there is such an event, and all before it were yielded.
        """
        accepted = await self._stream.count_accepted(events)
        for batch in _split(events[:accepted]):
            yield batch
        if accepted < len(events):
            self._stream.refuse(events[accepted])

    async def _publish(
        self, publisher: Publisher, epoch: str, batch: Sequence[RecordedEvent], after: int
    ) -> int:
        try:
            last = await publisher.publish(epoch, batch, after)
        except TimeoutError:
            self._timeouts += 1
            if self._timeouts >= MAX_TIMEOUTS and await self._stream.can_store():
                log.error("Stream stores nothing; recreating", timeouts=self._timeouts)
                self._timeouts = 0
                await self._recreate_stream()
            raise
        self._timeouts = 0
        return last

    async def _check(self, recreation_requested: asyncio.Event) -> None:
        """Verify that stream and state are still the expected ones; recreate the stream if a reader needs it.

        Raises:
            OutOfSync: they differ, or the stream was recreated.
        """
        stream = await self._stream.read_identity()
        if stream is None or not stream.complete or not _is_usable(stream, self._state):
            raise OutOfSync("the stream was replaced or has gaps")
        if stream.last_sequence != self._state.sequence:
            raise OutOfSync("the stream's last sequence is not the last marked one")
        if await self._outbox.read_state() != self._state:
            raise OutOfSync("the relay's state was changed")
        if recreation_requested.is_set() and stream.removed_to:
            await self._recreate_stream()
            raise OutOfSync("a reader needs messages that housekeeping has removed; recreated the stream")
        recreation_requested.clear()


def _is_usable(stream: StreamIdentity, state: RelayState) -> bool:
    """Return whether the relay can continue with a stream: same database, no gaps, and the state's epoch.

    A complete stream of another epoch came from elsewhere, for example from a backup of JetStream. Events
    published after the backup are marked, so nothing would publish them to it. An incomplete stream may be of
    another epoch: the relay that created it may have failed before it recorded the epoch.
    """
    if stream.incarnation != state.incarnation or not stream.intact:
        return False
    return stream.epoch == state.epoch or not stream.complete


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
