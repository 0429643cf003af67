"""Reads events from JetStream and hands them to the engine, one reader for each feed of a leased partition.

How it works:

- A feed is one type of stream in one partition, for one saga. A task for each feed opens a reader while this
  process holds the partition's lease, and polls for the lease otherwise.
- The reader begins behind the checkpoint in PostgreSQL. A checkpoint of another epoch belongs to a stream
  that was recreated; reading then begins at sequence 1, and the engine skips by version the events that it
  has processed.
- The engine advances the checkpoint in the transaction that delivers the events, so that none is lost or
  delivered twice even if this process is killed.
- The task needs no acknowledgements. After any error, such as a lost reader, a `CheckpointConflict` or an
  outage of PostgreSQL, it reads the checkpoint again and opens a new reader.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence

from contracts import streams
from contracts.envelope import RecordedEvent, from_message
from process_manager.awaited_events import ReadStreamEnd, StreamEnd
from process_manager.deadlines import Deadlines
from process_manager.due_work import Feed
from process_manager.engine import Engine, ReadStream
from process_manager.leases import Leases
from process_manager.preceding_inputs import ReadStreamEnds
from process_manager.staleness import ReadEnds
from process_manager.store import SagaStore
from process_manager.stream_replayer import StreamReplayer
from runtime.jetstream import (
    Connection,
    Message,
    StreamReader,
    SubjectReader,
    read_last_message,
    read_stream_identity,
    request_recreation,
)
from runtime.process import logs

MAX_BATCH = 200
"""Events in one transaction."""
MAX_READERS = 64
"""Readers of streams that are kept for the next slice of their stream."""
MAX_WAIT = 0.5
"""Seconds that a reader waits for events before it checks its lease."""
RESTART_INTERVAL = 0.25
"""Seconds before a reader is opened again after an error, and between checks of the lease."""

log = logs.get_logger(__name__)


class EventsRemoved(Exception):
    """The stream lacks events that a saga needs; the relay was asked to recreate it."""


class ReplicaBehind(Exception):
    """The server that answered lacks messages that the leader of the stream has; try again."""


class EventConsumer:
    """Consumes the events of the partitions that this process has leased.

    Args:
        connection: to NATS.
        engine: delivers the events to the sagas.
        store: reads the checkpoints.
        leases: the leased partitions.
        replayer: delivers parked streams.
        deadlines: delivers the events of sagas with deadlines.
    """

    def __init__(
        self,
        connection: Connection,
        engine: Engine,
        store: SagaStore,
        leases: Leases,
        replayer: StreamReplayer,
        deadlines: Deadlines,
    ) -> None:
        self._connection = connection
        self._engine = engine
        self._deadlines = deadlines
        self._store = store
        self._leases = leases
        self._replayer = replayer
        self._waits_for_stream = False

    async def run(self, stopping: asyncio.Event) -> None:
        """Consume until the process stops; restart after every error."""
        async with asyncio.TaskGroup() as group:
            for saga in self._engine.sagas.values():
                for subscription in saga.subscribes_to:
                    for partition in range(streams.PARTITIONS):
                        feed = Feed(saga.name, subscription.stream_type, partition)
                        group.create_task(self._run_feed(feed, stopping))

    async def _run_feed(self, feed: Feed, stopping: asyncio.Event) -> None:
        failures = logs.RepeatedErrors(
            log,
            "Event consumer failed; restarting",
            saga=feed.saga,
            streamType=feed.stream_type,
            partition=feed.partition,
        )
        while not stopping.is_set():
            if feed.partition in self._leases.partitions:
                try:
                    await self._consume(feed, stopping, failures)
                except Exception as error:  # must not stop the other partitions
                    failures.report(error)
            await asyncio.sleep(RESTART_INTERVAL)

    async def _consume(self, feed: Feed, stopping: asyncio.Event, failures: logs.RepeatedErrors) -> None:
        """Deliver events from the checkpoint on, until the lease ends or the process stops.

        While there is no stream, return: a relay creates it, and may start after this process.
        """
        await self._engine.begin(self._engine.sagas[feed.saga])
        checkpoint = await self._store.read_checkpoint(feed)
        identity = await read_stream_identity(self._connection.js)
        if identity is None:
            if not self._waits_for_stream:
                log.info("Waiting for the stream")
            self._waits_for_stream = True
            return
        self._waits_for_stream = False
        if not identity.has_events_after(checkpoint):
            await request_recreation(self._connection, identity.epoch)
            raise EventsRemoved(f"housekeeping has removed events after {checkpoint}; requested them again")
        self._replayer.request(feed, await self._store.read_parked(feed))
        epoch, sequence = checkpoint
        start = sequence + 1 if epoch == identity.epoch else 1
        subject = streams.partition_subject(feed.partition, feed.stream_type)
        deliver = (self._deadlines if feed.saga in self._deadlines.sagas else self._engine).deliver_events
        reader = await StreamReader.open(self._connection, identity.epoch, start, [subject])
        try:
            while feed.partition in self._leases.partitions and not stopping.is_set():
                if messages := await reader.read_batch(MAX_BATCH, MAX_WAIT):
                    reached = (identity.epoch, messages[-1].sequence)
                    events = _parse_events(messages)
                    parked = await deliver(feed, events, checkpoint, reached)
                    checkpoint = reached
                    self._replayer.request(feed, parked)
                failures.reset()
        finally:
            await reader.close()


def read_stream_from(connection: Connection) -> ReadStream:
    """Return a function that reads the next events of one stream that JetStream stores, from a version on."""
    readers: OrderedDict[tuple[str, int], SubjectReader] = OrderedDict()
    """By stream and next version: the reader of a slice need not seek for the following one."""

    async def read_stream(stream: str, version: int) -> list[RecordedEvent]:
        reader = readers.pop((stream, version), None)
        events = await _read_on(reader, version) if reader else []
        if reader is None or not events or events[0].version != version:
            # A stream that was recreated has other sequences.
            reader = SubjectReader(connection, streams.subject(stream))
            await reader.seek(version)
            events = await _read_on(reader, version)
        if events:
            readers[stream, events[-1].version + 1] = reader
        if len(readers) > MAX_READERS:
            readers.popitem(last=False)
        return events

    return read_stream


async def _read_on(reader: SubjectReader, version: int) -> list[RecordedEvent]:
    """Return the next events of this version or a later one; none if the stream has none.

    Raises:
        ReplicaBehind: the server that answered lacks messages that the leader of the stream has.
    """
    while messages := await reader.read_batch(MAX_BATCH):
        events = [event for event in _parse_events(messages) if event.version >= version]
        if events:
            return sorted(events, key=lambda event: event.version)
    if not await reader.has_ended():
        raise ReplicaBehind(f"events from version {version} on cannot be read yet")
    return []


def read_stream_end_from(connection: Connection) -> ReadStreamEnd:
    """Return a function that reads the end of one stream in JetStream."""
    read_ends = read_stream_ends_from(connection)

    async def read_stream_end(stream: str) -> StreamEnd | None:
        subject = streams.subject(stream)
        return (await read_ends([subject])).get(subject)

    return read_stream_end


def read_stream_ends_from(connection: Connection) -> ReadStreamEnds:
    """Return a function that reads the last messages of several subjects, with wildcards or without.

    It returns none of them while the stream is recreated: a sequence could be of either epoch.
    """

    async def read_stream_ends(subjects: Collection[str]) -> Mapping[str, StreamEnd | None]:
        identity = await read_stream_identity(connection.js)
        # A direct read has the subject in its own, which may hold no wildcard.
        reads = (read_last_message(connection.js, subject, direct="*" not in subject) for subject in subjects)
        messages = dict(zip(subjects, await asyncio.gather(*reads), strict=True))
        again = await read_stream_identity(connection.js)
        if identity is None or again is None or identity.epoch != again.epoch:
            return {}
        return {
            subject: _find_end(identity.epoch, message) if message else None
            for subject, message in messages.items()
        }

    return read_stream_ends


def read_ends_from(connection: Connection) -> ReadEnds:
    """Return a function that asks JetStream's leader for the ends of stream types and partitions."""

    async def read_ends(ends: Collection[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        subjects = [streams.partition_subject(partition, stream_type) for stream_type, partition in ends]
        reads = (read_last_message(connection.js, subject, direct=False) for subject in subjects)
        messages = zip(ends, await asyncio.gather(*reads), strict=True)
        return {end: message.sequence if message else 0 for end, message in messages}

    return read_ends


def _find_end(epoch: str, message: Message) -> StreamEnd | None:
    """Return the end of a stream; None if its message is not an event."""
    versions = [event.version for event in _parse_events([message])]
    return StreamEnd(epoch, message.sequence, versions[0]) if versions else None


def _parse_events(messages: Sequence[Message]) -> list[RecordedEvent]:
    """Return the events of messages, without the messages that no relay can have published.

    If such a message has replaced an event, the engine notices the missing version.
    """
    events = []
    for message in messages:
        try:
            events.append(from_message(message.subject, message.headers, message.data))
        except (KeyError, ValueError) as error:
            log.error(
                "Message is not an event", subject=message.subject, at=message.sequence, error=repr(error)
            )
    return events
