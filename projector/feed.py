"""The projector's side of JetStream: a reader per partition, and events out of messages.

A consumer of one subject filter delivers 30,000 messages a second here, one of several filters 90 to 280:
NATS 2.15 searches all subjects for each of its messages. So there is a consumer for every partition.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

from runtime import logs, streams
from runtime.envelope import RecordedEvent, from_message
from runtime.jetstream import (
    Connection,
    Message,
    StreamIdentity,
    StreamReader,
    read_subject,
    stream_identity,
)

PATIENCE = 2.0
"""Seconds that a partition's reader waits for messages before it looks whether it is still connected."""

log = logs.get("feed")


class PartitionReader:
    """Messages of several partitions, each partition's in order; made by `JetStreamFeed.open`."""

    def __init__(self, readers: Mapping[int, StreamReader]) -> None:
        self._readers = readers
        self._returned: Counter[int] = Counter()
        self._reading: dict[asyncio.Task[list[Message]], int] = {}

    async def batch(self, limit: int, wait: float) -> list[Message]:
        """Return the next messages: as soon as there are any, none after `wait` seconds without."""
        share = max(1, limit // len(self._readers))
        for partition in self._readers.keys() - self._reading.values():
            task = asyncio.create_task(self._readers[partition].batch(share, PATIENCE))
            self._reading[task] = partition
        done, _ = await asyncio.wait(self._reading, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        found: list[Message] = []
        for task in done:
            partition, messages = self._reading.pop(task), task.result()
            self._returned[partition] += len(messages)
            found += messages
        return found

    async def drained(self) -> frozenset[int]:
        """Ask the server for the partitions of which it holds nothing that was not returned here."""
        sent = await asyncio.gather(*(reader.sent_in_all() for reader in self._readers.values()))
        both = zip(self._readers, sent, strict=True)
        return frozenset(partition for partition, count in both if count == self._returned[partition])

    async def close(self) -> None:
        """Give the readers up."""
        while self._reading:  # wait_for of Python 3.11 may swallow a cancellation
            for task in self._reading:
                task.cancel()
            done, _ = await asyncio.wait(self._reading, timeout=1)
            for task in done:
                del self._reading[task]
                if not task.cancelled():
                    task.exception()  # it is of no interest any more
        await asyncio.gather(*(reader.close() for reader in self._readers.values()))


class JetStreamFeed:
    """The events of some types of streams.

    Args:
        connection: to NATS.
        hears: the stream types, `<context>.<aggregate>`.
    """

    def __init__(self, connection: Connection, hears: Sequence[str]) -> None:
        self._connection = connection
        self._hears = hears

    async def identity(self) -> StreamIdentity | None:
        """Return which stream it is now, and what it holds; None where there is none (yet)."""
        return await stream_identity(self._connection.js)

    async def open(self, epoch: str, starts: Mapping[int, int]) -> PartitionReader:
        """Return a reader of these partitions, from their sequences on."""
        opening = [
            StreamReader.open(self._connection, epoch, start, [self._filter(partition)])
            for partition, start in starts.items()
        ]
        opened = await asyncio.gather(*opening, return_exceptions=True)
        readers = {
            p: reader for p, reader in zip(starts, opened, strict=True) if isinstance(reader, StreamReader)
        }
        if errors := [error for error in opened if isinstance(error, BaseException)]:
            await PartitionReader(readers).close()
            raise errors[0]
        return PartitionReader(readers)

    def _filter(self, partition: int) -> str:
        """Return the one filter that covers what is heard; it may cover more."""
        return streams.partition_subject(partition, self._hears[0] if len(self._hears) == 1 else "*.*")

    def event_of(self, message: Message) -> RecordedEvent | None:
        """Return the event of a message; None for one that is not heard, or that no relay can have published.

        Should the latter stand in an event's place, its version is missing, which the next event shows.
        """
        if streams.stream_type(streams.stream_of_subject(message.subject)) not in self._hears:
            return None
        try:
            return from_message(message.subject, message.headers, message.data)
        except (KeyError, ValueError) as error:
            log.error("Message is no event", subject=message.subject, at=message.sequence, error=repr(error))
            return None

    async def history(self, stream: str) -> list[RecordedEvent]:
        """Return all events of one aggregate that the stream holds, oldest first."""
        messages = read_subject(self._connection.js, streams.subject(stream))
        return [event async for message in messages if (event := self.event_of(message)) is not None]
