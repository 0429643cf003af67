"""The relay: publishes committed events to the JetStream stream, in order and each of them once.

How it works. After a start, a takeover, a timeout or any error the relay discards its memory and recovers
(`Recovery`). Then it publishes pending events: read a batch from the outbox, publish it, and mark it with the
statement that reads the next one. If the relay fails before that, recovery marks what it finds in the stream.
Every message names the epoch and the sequence that it follows, and every mark compares the relay's state in
PostgreSQL. A relay that was frozen and replaced can therefore neither publish nor mark. Once per
CHECK_INTERVAL the relay compares stream and state with its expectation, and recovers if they differ.

Marks do not wait for the disk. A power failure may lose them, and the events' messages with them; then the
relay publishes these events again by position. They get their old sequences only if they were published by
position before. So the marks are made durable ahead of an event that is below one published since.

An event that NATS refuses because of its size blocks the feed, since nothing may overtake it. Command servers
reject commands that would make one, so this needs a limit that was lowered. The relay shows it in its log and
its health, reads the limit again and again, and continues once it is raised.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from time import monotonic
from typing import NoReturn

from command_server.relay.batch_sender import BatchSender, OutOfSync, Publisher
from command_server.relay.event_stream import MAX_BATCH_SIZE, EventStream, MessageTooLarge
from command_server.relay.outbox import Outbox
from command_server.relay.outbox_floor import OutboxFloor
from command_server.relay.outbox_rows import RelayState, TransactionSnapshot
from command_server.relay.publication_requests import PublicationRequests
from command_server.relay.recovery import Recovery, is_usable
from contracts.envelope import RecordedEvent
from runtime.backoff import Backoff
from runtime.process import logs

MARK_DELAY = 0.02
"""Seconds that published events wait for a notification, to be marked by the statement that reads on."""
POLL_INTERVAL = 0.5
"""Seconds between reads of an empty outbox if no notification arrives."""
CHECK_INTERVAL = 0.9
"""Seconds between checks of the stream and the relay's state; a foreign message is noticed that soon."""
INITIAL_PAUSE, MAX_PAUSE = 0.1, 2.0
"""Seconds before a restart: after the first error, and at most while errors continue."""
STABLE_AFTER = 5.0
"""Seconds without an error after which the next restart counts as the first one."""

log = logs.get_logger(__name__)


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
        self._sender = BatchSender(outbox, stream, publisher)
        self._recovery = Recovery(outbox, stream, self._sender)
        self._state = RelayState("", "", 0)
        self._unmarked: list[int] = []
        """Positions of the events that the stream has after `_state.sequence`, in its order."""
        self._last_position = 0
        """The position of the last event that was published since all marks were durable; 0 if none was."""
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
                    self._unmarked, self._last_position = [], 0
                    self._state = await self._recovery.run()
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

    async def _publish_pending(self) -> NoReturn:
        """Publish pending events as they are committed."""
        floor, published_to, checked_at = OutboxFloor(), 0, monotonic()
        requests, client_number = PublicationRequests(), self._stream.signals.client_number
        async with (
            self._stream.signals.subscribe_notifications() as notified,
            self._stream.signals.subscribe_recreation_requests(self._state.epoch) as recreation_requested,
            self._subscribe_requests(requests, notified),
        ):
            while True:
                notified.clear()  # before the read: a later commit sets it again
                requests.begin_read()
                events, is_full_batch = await self._mark_and_read(floor.position)
                if events:
                    await self._publish(events)
                    # After a full batch more events may be pending above its last one, even if they are below
                    # positions that were published before.
                    published_to = (
                        events[-1].position if is_full_batch else max(published_to, events[-1].position)
                    )
                self._report_continued()
                if self._stream.signals.client_number != client_number:
                    raise OutOfSync("the client of NATS was replaced, and lost its subscriptions")
                await self._reply_to(requests, events[-1].position if is_full_batch else None)
                if not is_full_batch:
                    wait = MARK_DELAY if self._unmarked else POLL_INTERVAL
                    with suppress(TimeoutError):
                        async with asyncio.timeout(min(wait, checked_at + CHECK_INTERVAL - monotonic())):
                            await notified.wait()
                if monotonic() - checked_at >= CHECK_INTERVAL:
                    floor.observe(published_to, monotonic(), await self._check(recreation_requested))
                    checked_at = monotonic()

    def _subscribe_requests(
        self, requests: PublicationRequests, notified: asyncio.Event
    ) -> AbstractAsyncContextManager[None]:
        """Receive the requests of readers; each lets the next read begin at once."""

        def receive(reply: str) -> None:
            requests.receive(reply)
            notified.set()

        return self._stream.signals.subscribe_publication_requests(receive)

    async def _reply_to(self, requests: PublicationRequests, published_to: int | None) -> None:
        """Reply to the requests that are fulfilled after a read (`PublicationRequests.take_fulfilled`)."""
        for reply in requests.take_fulfilled(published_to):
            await self._stream.signals.confirm_publication(reply, self._state.epoch, self._end)
        if requests.has_unbound:
            requests.bind(await self._outbox.read_last_position())

    @property
    def _end(self) -> int:
        """The stream's last sequence."""
        return self._state.sequence + len(self._unmarked)

    async def _mark_and_read(self, floor: int) -> tuple[list[RecordedEvent], bool]:
        """Mark the events that were published since the last call, and return pending ones."""
        if not self._unmarked:
            return await self._outbox.read_pending(floor, MAX_BATCH_SIZE)
        self._state, events, is_full_batch = await self._outbox.mark_and_read(
            self._state, self._unmarked, self._end, floor, MAX_BATCH_SIZE
        )
        self._unmarked = []
        return events, is_full_batch

    async def _publish(self, events: Sequence[RecordedEvent]) -> None:
        """Publish the events of one read, which has marked all earlier ones."""
        if events[0].position < self._last_position:
            await self._outbox.sync_marks(self._state)
        self._last_position = events[-1].position
        async for batch, _ in self._sender.send(self._state, events, self._end):
            self._unmarked += [event.position for event in batch]

    async def _check(self, recreation_requested: asyncio.Event) -> TransactionSnapshot:
        """Verify that stream and state are still the expected ones; recreate the stream if a reader needs it.

        Returns:
            The transactions that have ended, seen after the latest read of the outbox.

        Raises:
            OutOfSync: they differ, or the stream was recreated.
        """
        stream = await self._stream.read_identity()
        if stream is None or not stream.complete or not is_usable(stream, self._state):
            raise OutOfSync("the stream was replaced or has gaps")
        if stream.last_sequence != self._end:
            raise OutOfSync("the stream's last sequence is not the last published one")
        if self._stream.has_changed_keys(stream):
            raise OutOfSync("the keys that sign the stream have changed")
        state, snapshot = await self._outbox.read_state_and_snapshot()
        if state != self._state:
            raise OutOfSync("the relay's state was changed")
        if recreation_requested.is_set() and stream.removed_to:
            await self._sender.recreate_stream(self._state)
            raise OutOfSync("a reader needs messages that housekeeping has removed; recreated the stream")
        recreation_requested.clear()
        await self._stream.enable_batches(stream)
        return snapshot
