"""The relay's recovery: brings the stream and the marks in PostgreSQL into agreement.

How it works. It runs after a start, a takeover, a timeout or any error, and trusts no memory of the relay:

1. It verifies that the stream belongs to this database, has no gaps, and is signed with keys that are still
   valid, and recreates it otherwise. It reads the stream's end from the leader, because a server that lags
   behind may answer while none leads.
2. It publishes again the tail that a power failure lost, under the old sequences.
3. It marks the events that were published but not marked, after comparing each with the recorded event.
   Foreign messages are passed over, as readers do.
4. It fills a new stream with all earlier events.
5. It makes all marks durable, also those of another relay.
"""

from collections.abc import Sequence
from time import monotonic
from typing import NoReturn

from command_server.relay.batch_sender import Batches, BatchSender, OutOfSync
from command_server.relay.event_messages import is_copy
from command_server.relay.event_stream import MAX_BATCH_SIZE, EventStream
from command_server.relay.outbox import Outbox
from command_server.relay.outbox_rows import RelayState
from runtime.jetstream import Message, StreamIdentity, StreamReader, report_foreign
from runtime.process import logs

READ_TIMEOUT = 5.0
"""Seconds without a message after which reading the stream fails."""

log = logs.get_logger(__name__)


class Recovery:
    """Recovers the relay's state.

    Args:
        outbox: the source.
        stream: the destination.
        sender: publishes in batches.
    """

    def __init__(self, outbox: Outbox, stream: EventStream, sender: BatchSender) -> None:
        self._outbox = outbox
        self._stream = stream
        self._sender = sender
        self._state = RelayState("", "", 0)

    async def run(self) -> RelayState:
        """Return the state at which stream and marks agree.

        Raises:
            OutOfSync: something else changes them; the recovery must be repeated.
        """
        stream = await self._ensure_stream()
        await self._stream.enable_batches(stream)
        await self._stream.declare_key(stream)
        await self._republish_lost_tail(stream)
        await self._mark_published_tail(stream)
        if not stream.complete:
            await self._publish_history(stream)
        await self._outbox.sync_marks(self._state)
        return self._state

    async def _ensure_stream(self) -> StreamIdentity:
        """Return the stream, recreated if it is unusable, and load the state that belongs to it."""
        self._state = state = await self._outbox.read_state()
        stream = await self._stream.read_identity()
        obstacle = self._stream.find_obstacle(stream) if stream else ""
        if stream is None or obstacle or not is_usable(stream, state):
            if stream is None and not state.epoch:
                log.info("Creating the first stream")
            else:
                log.warning("Stream unusable; recreating", error=obstacle, stream=stream, state=state)
            await self._sender.recreate_stream(state)
            stream = await self._stream.read_identity()
            if stream is None or not is_usable(stream, state):
                raise OutOfSync("the stream was changed during recovery")
        if await self._stream.read_end() != (stream.last_sequence if stream.messages else 0):
            raise OutOfSync("the stream's servers differ about its end, or another relay publishes")
        if stream.epoch != state.epoch:
            # A new epoch: no event is marked as published to this stream, and its sequences begin at 1.
            self._state = await self._outbox.begin_epoch(state, stream.epoch)
        return stream

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
            await self._sender.recreate_stream(state)
            raise OutOfSync("the outbox no longer has all events that the stream has lost")
        positions = list(lost_positions.values())
        async for events in self._outbox.read_events(positions):
            async for _, last in self._sender.send_again(state, events, end):
                end = last

    async def _mark_published_tail(self, stream: StreamIdentity) -> None:
        """Mark the events that the stream has after the last mark.

        They were published by a relay that failed before it could mark them.
        """
        if self._state.sequence >= stream.last_sequence:
            return
        reader = await self._stream.open_reader(stream.epoch, self._state.sequence + 1)
        try:
            while self._state.sequence < stream.last_sequence:
                messages = await _read_batch(reader)
                positions = await self._verify_messages(messages)
                self._state = await self._outbox.mark(self._state, positions, messages[-1].sequence)
        finally:
            await reader.close()

    async def _verify_messages(self, messages: Sequence[Message]) -> list[int | None]:
        """Return the positions of the messages' events; None for each foreign message.

        Each event must be the only one in this epoch, and a copy of the recorded event.

        Raises:
            OutOfSync: an event violates this. If it was not recorded here, the stream was recreated;
                otherwise another relay has marked it in the meantime.
        """
        events = await self._stream.decode(messages, self._state.epoch)
        positions = [event.position for event in events if event is not None]
        recorded_events = {
            event.position: event async for page in self._outbox.read_events(positions) for event in page
        }
        marked_positions = await self._outbox.find_marked(self._state.epoch, positions)
        for message, event in zip(messages, events, strict=True):
            if event is None:
                report_foreign(message)
                continue
            if event.position in marked_positions or not is_copy(event, recorded_events.get(event.position)):
                await self._recreate_stream(message)
            marked_positions.add(event.position)
        return [event.position if event else None for event in events]

    async def _recreate_stream(self, unknown: Message) -> NoReturn:
        # Raises OutOfSync if another relay has marked the message, which is no reason for an alarm.
        await self._sender.recreate_stream(self._state)
        log.error("Unknown event in stream; recreating", subject=unknown.subject, sequence=unknown.sequence)
        raise OutOfSync("the stream has an event that was not recorded in this database")

    async def _publish_history(self, stream: StreamIdentity) -> None:
        """Publish all events that are not pending, in order, after the last one; then the pending ones.

        A late commit at a low position is pending, and so is an event that readers of the previous stream may
        have seen, if its mark was lost. So the stream is complete only once it has these, too.
        """
        if not stream.has_history:  # afterwards the last event's position would not tell where to continue
            after = await self._read_last_position()
            log.info("Stream build started", after=after)
            while True:
                end, events = await self._outbox.read_history(after, MAX_BATCH_SIZE)
                if end == after:
                    break
                await self._mark_batches(self._sender.send_again(self._state, events, self._state.sequence))
                after = end
            await self._stream.declare_history()
        has_more = True
        while has_more:
            events, has_more = await self._outbox.read_pending(0, MAX_BATCH_SIZE)
            await self._mark_batches(self._sender.send(self._state, events, self._state.sequence))
        await self._stream.declare_complete()
        log.info("Stream build finished", events=self._state.sequence)

    async def _read_last_position(self) -> int:
        """Return the position of the stream's last event up to the last mark; 0 if there is none.

        A consumer reads it, since that is bound to the epoch: asked for a sequence, a server that was frozen
        may answer for a moment with a message of a stream that has been deleted meanwhile.
        """
        end, size = self._state.sequence, 1
        while end:
            start, size = max(1, end - size + 1), MAX_BATCH_SIZE  # at first the last message alone
            reader = await self._stream.open_reader(self._state.epoch, start)
            messages: list[Message] = []
            try:
                while len(messages) <= end - start:
                    messages += await _read_batch(reader)
            finally:
                await reader.close()
            events = await self._stream.decode(messages[: end - start + 1], self._state.epoch)
            if positions := [event.position for event in events if event is not None]:
                return positions[-1]
            end = start - 1
        return 0

    async def _mark_batches(self, batches: Batches) -> None:
        async for batch, last in batches:
            self._state = await self._outbox.mark(self._state, [event.position for event in batch], last)


async def _read_batch(reader: StreamReader) -> Sequence[Message]:
    """Return the next messages of a stream that has more.

    Raises:
        TimeoutError: none arrives within READ_TIMEOUT.
    """
    deadline = monotonic() + READ_TIMEOUT
    while (remaining := deadline - monotonic()) > 0:
        # It returns early without a message where a request ended with the message before, by its bytes.
        if messages := await reader.read_batch(MAX_BATCH_SIZE, remaining):
            return messages
    raise TimeoutError(f"no message within {READ_TIMEOUT} s although the stream has more")


def is_usable(stream: StreamIdentity, state: RelayState) -> bool:
    """Return whether the relay can continue with a stream: same database, no gaps, and the state's epoch.

    A complete stream of another epoch came from elsewhere, for example from a backup of JetStream. Events
    published after the backup are marked, so nothing would publish them to it. An incomplete stream may be of
    another epoch: the relay that created it may have failed before it recorded the epoch.
    """
    if stream.incarnation != state.incarnation or not stream.intact:
        return False
    return stream.epoch == state.epoch or not stream.complete
