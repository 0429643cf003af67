"""The projector's side of JetStream: a reader per partition, and events out of messages.

A consumer of one subject filter delivers 30,000 messages a second here, one of several filters 90 to 280:
NATS 2.15 searches all subjects for each of its messages. So there is a consumer for every partition.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress

from contracts import streams
from contracts.envelope import RecordedEvent, from_message
from runtime.jetstream import (
    Connection,
    Message,
    StreamIdentity,
    StreamReader,
    read_subject,
    stream_identity,
)
from runtime.process import logs

log = logs.get_logger(__name__)


class PartitionReader:
    """Messages of several partitions, each partition's in order; made by `JetStreamFeed.open`.

    Args:
        readers: of each partition.
        arrived: what they set when there is something to take.
    """

    def __init__(self, readers: Mapping[int, StreamReader], arrived: asyncio.Event) -> None:
        self._readers = readers
        self._arrived = arrived
        self._returned: Counter[int] = Counter()

    async def batch(self, limit: int, wait: float) -> list[Message]:
        """Return the next messages: as soon as there are any, none after `wait` seconds without."""
        self._arrived.clear()
        if found := await self._taken(limit):
            return found
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._arrived.wait()
        return await self._taken(limit)

    async def _taken(self, limit: int) -> list[Message]:
        share = max(1, limit // len(self._readers))
        found: list[Message] = []
        for partition, reader in self._readers.items():
            messages = await reader.take(share)
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
        arrived = asyncio.Event()
        opening = [
            StreamReader.open(self._connection, epoch, start, [self._filter(partition)], arrived)
            for partition, start in starts.items()
        ]
        opened = await asyncio.gather(*opening, return_exceptions=True)
        readers = {
            p: reader for p, reader in zip(starts, opened, strict=True) if isinstance(reader, StreamReader)
        }
        if errors := [error for error in opened if isinstance(error, BaseException)]:
            await PartitionReader(readers, arrived).close()
            raise errors[0]
        return PartitionReader(readers, arrived)

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
