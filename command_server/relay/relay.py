"""The relay's way through its work.

After a start, a take-over, a time-out or any error the relay trusts nothing that it remembers. It makes sure
that the stream is its own and whole, publishes again what the stream has lost, marks what the stream holds
beyond the last mark, fills a stream that was made anew with all earlier events, and only then goes on.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from time import monotonic
from typing import NoReturn, Protocol

from command_server.relay.event_stream import BATCH, EventStream, event_of, is_copy
from command_server.relay.outbox import Outbox, State
from command_server.relay.outbox_floor import Floor
from contracts.envelope import RecordedEvent
from runtime.backoff import Backoff
from runtime.jetstream import Message, StreamIdentity
from runtime.process import logs

BATCH_BYTES = 4 * 1024 * 1024
"""Event data in one batch, unless a single event has more."""
POLL = 0.25
"""Seconds after which the outbox is looked at when nobody says that it holds something new."""
CHECK = 1.0
"""Seconds between looks at the stream's identity."""
SILENCE = 5.0
"""Seconds without a message after which reading the stream counts as failed."""
RETRY_FIRST, RETRY_MOST = 0.1, 2.0
"""Seconds before starting over: after an error that comes alone, and while one follows another."""

log = logs.get_logger(__name__)


class Unsettled(Exception):
    """The stream or the relay's state is not what it was: the relay starts over."""


class Publisher(Protocol):
    """Publishes fenced batches; see EventStream.publish."""

    async def publish(self, epoch: str, events: Sequence[RecordedEvent], after: int) -> int:
        """Publish events and return the sequence of the last."""


class Relay:
    """Publishes pending events while it leads."""

    def __init__(self, outbox: Outbox, stream: EventStream, publisher: Publisher) -> None:
        """Make a relay.

        Args:
            outbox: what is to be published.
            stream: where to.
            publisher: the stream, or a decorator that observes what is published for the first time.
        """
        self._outbox = outbox
        self._stream = stream
        self._publisher = publisher
        self._state = State("", "", 0)

    async def lead(self) -> NoReturn:
        """Publish what is pending, for ever; after any error, start over."""
        backoff = Backoff(RETRY_FIRST, RETRY_MOST)
        async with self._outbox:
            while True:
                started = monotonic()
                try:
                    await self._settle()
                    await self._forward()
                except Exception as error:
                    log.warning("The relay starts over", reason=f"{type(error).__name__}: {error}")
                if monotonic() - started > SILENCE:
                    backoff.reset()
                await asyncio.sleep(backoff.next_pause())

    async def _settle(self) -> None:
        """Bring the stream and the marks to where forwarding can go on."""
        stream = await self._own_stream()
        await self._republish_lost(stream)
        await self._mark_published(stream)
        if not stream.complete:
            await self._republish_all()

    async def _own_stream(self) -> StreamIdentity:
        """Return the stream, made anew where it is not ours or not whole, with the state to go with it."""
        self._state = state = await self._outbox.state()
        stream = await self._stream.identity()
        if stream is None or not _usable(stream, state):
            log.warning("The stream is made anew", found=stream, state=state)
            await self._recreate()
            stream = await self._stream.identity()
            if stream is None or not _usable(stream, state):
                raise Unsettled("somebody else changes the stream")
        if stream.epoch != state.epoch:
            self._state = await self._outbox.begin_epoch(state, stream.epoch)
        return stream

    async def _recreate(self) -> None:
        """Make the stream anew, unless another relay was at work meanwhile: then it may be whole.

        Raises:
            Unsettled: another relay has begun an epoch or marked events.
        """
        if await self._outbox.state() != self._state:
            raise Unsettled("another relay is at work")
        await self._stream.recreate(self._state.incarnation)

    async def _republish_lost(self, stream: StreamIdentity) -> None:
        """Publish again, under their old sequences, events that were marked and are not in the stream."""
        end, state = stream.last_sequence, self._state
        if end >= state.sequence:
            return
        lost = await self._outbox.published(stream.epoch, after=end)
        log.warning("The stream has lost events", first=end + 1, last=state.sequence, remembered=len(lost))
        if list(lost) != list(range(end + 1, state.sequence + 1)):
            await self._recreate()
            raise Unsettled("the outbox no longer holds all events that the stream has lost")
        positions = list(lost.values())
        for start in range(0, len(positions), BATCH):
            for batch in _batches(await self._outbox.events(positions[start : start + BATCH])):
                end = await self._stream.publish(stream.epoch, batch, end)

    async def _mark_published(self, stream: StreamIdentity) -> None:
        """Mark what the stream holds after the last mark."""
        if self._state.sequence >= stream.last_sequence:
            return
        reader = await self._stream.read(stream.epoch, self._state.sequence + 1)
        try:
            while self._state.sequence < stream.last_sequence:
                messages = await reader.batch(BATCH, SILENCE)
                if not messages:
                    raise TimeoutError("the stream could not be read to its end")
                positions = await self._positions(messages)
                self._state = await self._outbox.mark(self._state, positions, messages[-1].sequence)
        finally:
            await reader.close()

    async def _positions(self, messages: Sequence[Message]) -> list[int]:
        """Return the positions of the events that messages carry, each for the first time in this epoch.

        Raises:
            Unsettled: a message carries no such event. Either no relay has published it, and the stream is
                made anew, or another relay has marked it meanwhile.
        """
        carried = [event_of(message) for message in messages]
        positions = [event.position for event in carried if event is not None]
        known = {event.position: event for event in await self._outbox.events(positions)}
        marked = await self._outbox.marked(self._state.epoch, positions)
        for message, event in zip(messages, carried, strict=True):
            if event is None or event.position in marked or not is_copy(event, known.get(event.position)):
                await self._recreate()
                log.error("A message is not of ours", subject=message.subject, sequence=message.sequence)
                raise Unsettled("the stream holds what no relay has published")
            marked.add(event.position)
        return positions

    async def _republish_all(self) -> None:
        """Publish all events that are not pending, in order, from where the stream ends."""
        after = await self._stream.last_position(self._state.sequence)
        log.info("Filling the stream", after=after)
        while True:
            reached, events = await self._outbox.history(after, BATCH)
            if reached == after:
                break
            await self._publish(self._stream, events)
            after = reached
        await self._stream.declare_complete()
        log.info("The stream is filled", events=self._state.sequence)

    async def _forward(self) -> NoReturn:
        """Publish what is pending as it comes."""
        floor, reached, checked = Floor(), 0, monotonic()
        async with self._stream.wakes() as woken:
            while True:
                woken.clear()
                events = await self._outbox.pending(floor.position, BATCH)
                if events:
                    await self._publish(self._publisher, events)
                    full = len(events) == BATCH
                    reached = events[-1].position if full else max(reached, events[-1].position)
                else:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(POLL):
                            await woken.wait()
                if monotonic() - checked >= CHECK:
                    await self._check()
                    floor.note(reached, monotonic(), await self._outbox.snapshot())
                    checked = monotonic()

    async def _publish(self, publisher: Publisher, events: Sequence[RecordedEvent]) -> None:
        """Publish events and mark them."""
        for batch in _batches(events):
            last = await publisher.publish(self._state.epoch, batch, self._state.sequence)
            self._state = await self._outbox.mark(self._state, [event.position for event in batch], last)

    async def _check(self) -> None:
        """Make sure that the stream is still the one that this relay believes it is, and whole."""
        stream = await self._stream.identity()
        if stream is None or not stream.complete or not _usable(stream, self._state):
            raise Unsettled("the stream is another one, or not whole")
        if stream.last_sequence != self._state.sequence:
            raise Unsettled("the stream does not end where this relay left it")
        if await self._outbox.state() != self._state:
            raise Unsettled("the relay's state has changed")


def _usable(stream: StreamIdentity, state: State) -> bool:
    """Return whether a stream can be gone on with.

    A filled stream of an epoch that is not the state's came from elsewhere, a backup of JetStream's perhaps.
    One that is not filled may be of a new epoch that was not recorded yet.
    """
    if stream.incarnation != state.incarnation or not stream.intact:
        return False
    return stream.epoch == state.epoch or not stream.complete


def _batches(events: Sequence[RecordedEvent]) -> Iterator[Sequence[RecordedEvent]]:
    """Split events into runs of at most BATCH_BYTES of data, or single events."""
    start = size = 0
    for index, event in enumerate(events):
        size += len(event.data)
        if size > BATCH_BYTES and index > start:
            yield events[start:index]
            start, size = index, len(event.data)
    if start < len(events):
        yield events[start:]
