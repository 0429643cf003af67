"""From JetStream to sagas: for each kind of saga and each partition a reader, from where progress says."""

import asyncio
from collections.abc import Sequence
from typing import Any

from contracts import streams
from contracts.envelope import RecordedEvent, from_message
from process_manager.due_work import NO_CHECKPOINT
from process_manager.engine import Engine, History
from process_manager.leases import Leases
from process_manager.saga import Saga
from process_manager.store import SagaStore
from runtime.jetstream import Connection, Message, ReaderLost, StreamReader, read_subject, stream_identity
from runtime.process import logs

BATCH = 200
"""Events in one transaction, at most."""
WAIT = 0.5
"""Seconds that a reader waits for events before it looks whether it still should."""
PAUSE = 0.25
"""Seconds before a reader that was lost is opened again."""

log = logs.get_logger(__name__)


class EventConsumer:
    """Reads what sagas hear, in the partitions that this process holds.

    Args:
        connection: to NATS.
        engine: tells the sagas.
        store: knows the progress.
        leases: which partitions those are.
    """

    def __init__(self, connection: Connection, engine: Engine, store: SagaStore, leases: Leases) -> None:
        self._connection = connection
        self._engine = engine
        self._store = store
        self._leases = leases

    async def run(self, stopping: asyncio.Event) -> None:
        """Hear until the process stops; what fails is tried again for ever."""
        async with asyncio.TaskGroup() as group:
            for saga in self._engine.sagas.values():
                for partition in range(streams.PARTITIONS):
                    group.create_task(self._keep(saga, partition, stopping))

    async def _keep(self, saga: Saga[Any], partition: int, stopping: asyncio.Event) -> None:
        said = ""
        while not stopping.is_set():
            if partition in self._leases.held:
                try:
                    await self._follow(saga, partition, stopping)
                    said = ""
                except Exception as error:  # other partitions go on
                    if said != repr(error):
                        said = repr(error)
                        log.warning("Hearing ended", saga=saga.name, partition=partition, reason=said)
            await asyncio.sleep(PAUSE)

    async def _follow(self, saga: Saga[Any], partition: int, stopping: asyncio.Event) -> None:
        """Tell what a partition holds, from the last progress on, while it is this process's."""
        checkpoint = (await self._store.checkpoints(saga.name)).get(partition, NO_CHECKPOINT)
        identity = await stream_identity(self._connection.js)
        if identity is None:
            raise ReaderLost("there is no stream")
        epoch, sequence = checkpoint
        start = sequence + 1 if epoch == identity.epoch else 1
        subject = streams.partition_subject(partition, saga.subscribes_to)
        reader = await StreamReader.open(self._connection, identity.epoch, start, [subject])
        try:
            while partition in self._leases.held and not stopping.is_set():
                if messages := await reader.batch(BATCH, WAIT):
                    reached = (identity.epoch, messages[-1].sequence)
                    await self._engine.receive_events(saga, partition, _events(messages), checkpoint, reached)
                    checkpoint = reached
        finally:
            await reader.close()


def history(connection: Connection) -> History:
    """Return what returns all events of one aggregate that JetStream holds, oldest first."""

    async def of(stream: str) -> list[RecordedEvent]:
        return _events([found async for found in read_subject(connection.js, streams.subject(stream))])

    return of


def _events(messages: Sequence[Message]) -> list[RecordedEvent]:
    """Return the events of messages; what no relay can have published is left out, and shows as a gap."""
    events = []
    for message in messages:
        try:
            events.append(from_message(message.subject, message.headers, message.data))
        except (KeyError, ValueError) as error:
            log.error("Message is no event", subject=message.subject, at=message.sequence, error=repr(error))
    return events
