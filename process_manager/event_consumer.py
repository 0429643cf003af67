"""Reads events from JetStream and hands them to the engine, one reader for each saga and leased partition.

How it works:

- One task for each saga and partition opens a reader while this process holds the partition's lease, and
  polls for the lease otherwise.
- The reader begins behind the checkpoint in PostgreSQL. A checkpoint of another epoch belongs to a stream
  that was recreated; reading then begins at sequence 1, and the engine skips by version the events that it
  has processed.
- The engine advances the checkpoint in the transaction that delivers the events, so that none is lost or
  delivered twice even if this process is killed.
- The task needs no acknowledgements. After any error, such as a lost reader, a `CheckpointConflict` or an
  outage of PostgreSQL, it reads the checkpoint again and opens a new reader.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from contracts import streams
from contracts.envelope import RecordedEvent, from_message
from process_manager.due_work import NO_CHECKPOINT
from process_manager.engine import Engine, ReadStream
from process_manager.leases import Leases
from process_manager.saga import Saga
from process_manager.store import SagaStore
from runtime.jetstream import (
    Connection,
    Message,
    StreamReader,
    read_stream_identity,
    read_subject,
)
from runtime.process import logs

MAX_BATCH = 200
"""Events in one transaction."""
MAX_WAIT = 0.5
"""Seconds that a reader waits for events before it checks its lease."""
RESTART_INTERVAL = 0.25
"""Seconds before a reader is opened again after an error, and between checks of the lease."""

log = logs.get_logger(__name__)


class EventConsumer:
    """Consumes the events of the partitions that this process has leased.

    Args:
        connection: to NATS.
        engine: delivers the events to the sagas.
        store: reads the checkpoints.
        leases: the leased partitions.
    """

    def __init__(self, connection: Connection, engine: Engine, store: SagaStore, leases: Leases) -> None:
        self._connection = connection
        self._engine = engine
        self._store = store
        self._leases = leases
        self._waits_for_stream = False

    async def run(self, stopping: asyncio.Event) -> None:
        """Consume until the process stops; restart after every error."""
        async with asyncio.TaskGroup() as group:
            for saga in self._engine.sagas.values():
                for partition in range(streams.PARTITIONS):
                    group.create_task(self._run_partition(saga, partition, stopping))

    async def _run_partition(self, saga: Saga[Any], partition: int, stopping: asyncio.Event) -> None:
        logged_error = ""
        while not stopping.is_set():
            if partition in self._leases.partitions:
                try:
                    await self._consume(saga, partition, stopping)
                    logged_error = ""
                except Exception as error:  # must not stop the other partitions
                    if logged_error != repr(error):  # log an error that repeats once
                        logged_error = repr(error)
                        log.warning(
                            "Event consumer failed; restarting",
                            saga=saga.name,
                            partition=partition,
                            error=logged_error,
                        )
            await asyncio.sleep(RESTART_INTERVAL)

    async def _consume(self, saga: Saga[Any], partition: int, stopping: asyncio.Event) -> None:
        """Deliver events from the checkpoint on, until the lease ends or the process stops.

        While there is no stream, return: a relay creates it, and may start after this process.
        """
        checkpoint = (await self._store.read_checkpoints(saga.name)).get(partition, NO_CHECKPOINT)
        identity = await read_stream_identity(self._connection.js)
        if identity is None:
            if not self._waits_for_stream:
                log.info("Waiting for the stream")
            self._waits_for_stream = True
            return
        self._waits_for_stream = False
        epoch, sequence = checkpoint
        start = sequence + 1 if epoch == identity.epoch else 1
        subject = streams.partition_subject(partition, saga.subscribes_to)
        reader = await StreamReader.open(self._connection, identity.epoch, start, [subject])
        try:
            while partition in self._leases.partitions and not stopping.is_set():
                if messages := await reader.read_batch(MAX_BATCH, MAX_WAIT):
                    reached = (identity.epoch, messages[-1].sequence)
                    await self._engine.deliver_events(
                        saga, partition, _parse_events(messages), checkpoint, reached
                    )
                    checkpoint = reached
        finally:
            await reader.close()


def read_stream_from(connection: Connection) -> ReadStream:
    """Return a function that reads all events of one stream that JetStream stores."""

    async def read_stream(stream: str) -> list[RecordedEvent]:
        messages = [message async for message in read_subject(connection.js, streams.subject(stream))]
        return _parse_events(messages)

    return read_stream


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
