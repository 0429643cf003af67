"""The projector's side of JetStream: one reader per partition, and the decoding of messages.

How it works. Each partition has a consumer of its own. A consumer with one subject filter delivers 30,000
messages a second here, one with several filters 90 to 280, because NATS 2.15 then searches all subjects for
each message. The readers share one asyncio event that wakes the `PartitionReader`, which takes a fair share
of the batch from each. The consumers acknowledge nothing: the checkpoints are stored with the views.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from contracts import streams
from contracts.envelope import RecordedEvent, from_message
from runtime.jetstream import (
    Connection,
    Message,
    StreamIdentity,
    StreamReader,
    SubjectReader,
    read_stream_identity,
    request_recreation,
)
from runtime.process import logs

log = logs.get_logger(__name__)


class PartitionReader:
    """Reads several partitions, each in order; `JetStreamEventFeed.open` creates it.

    Args:
        readers: one for each partition.
        arrived: set by the readers when messages have arrived.
    """

    def __init__(self, readers: Mapping[int, StreamReader], arrived: asyncio.Event) -> None:
        self._readers = readers
        self._arrived = arrived
        self._returned_counts: Counter[int] = Counter()

    async def read_batch(self, limit: int, max_wait: float) -> list[Message]:
        """Return the next messages, at least one unless none arrives within `max_wait` seconds."""
        self._arrived.clear()
        if messages := await self._take(limit):
            return messages
        with suppress(TimeoutError):
            async with asyncio.timeout(max_wait):
                await self._arrived.wait()
        return await self._take(limit)

    async def _take(self, limit: int) -> list[Message]:
        share = max(1, limit // len(self._readers))
        batch: list[Message] = []
        for partition, reader in self._readers.items():
            messages = await reader.take(share)
            self._returned_counts[partition] += len(messages)
            batch += messages
        return batch

    async def fetch_drained_partitions(self) -> frozenset[int]:
        """Return the partitions whose messages have all been delivered (`num_pending == 0`) and returned."""
        # Delivered messages may still wait in a reader, so the server's count is compared with ours.
        delivered = await asyncio.gather(*(reader.count_sent() for reader in self._readers.values()))
        counts = zip(self._readers, delivered, strict=True)
        return frozenset(
            partition for partition, count in counts if count == self._returned_counts[partition]
        )

    async def close(self) -> None:
        await asyncio.gather(*(reader.close() for reader in self._readers.values()))


class JetStreamEventFeed:
    """The events of some stream types.

    Args:
        connection: to NATS.
        source_streams: the stream types, `<context>.<aggregate>`.
    """

    def __init__(self, connection: Connection, source_streams: Sequence[str]) -> None:
        self._connection = connection
        self._source_streams = source_streams
        self._foreign = logs.LimitedErrors(log, "Message is not an event")

    async def read_identity(self) -> StreamIdentity | None:
        """Return the JetStream stream's identity and extent; None if the stream does not exist."""
        return await read_stream_identity(self._connection.js)

    async def open(self, epoch: str, starts: Mapping[int, int]) -> PartitionReader:
        """Return a reader of these partitions, each from its start sequence on.

        Raises:
            ReaderLost: the stream has another epoch, or does not exist.
            nats.errors.Error: JetStream is unreachable.
        """
        arrived = asyncio.Event()
        opening = [
            StreamReader.open(
                self._connection, epoch, start, [self._build_subject_filter(partition)], arrived
            )
            for partition, start in starts.items()
        ]
        results = await asyncio.gather(*opening, return_exceptions=True)
        readers = {
            p: reader for p, reader in zip(starts, results, strict=True) if isinstance(reader, StreamReader)
        }
        if errors := [error for error in results if isinstance(error, BaseException)]:
            await PartitionReader(readers, arrived).close()
            raise errors[0]
        return PartitionReader(readers, arrived)

    async def request_removed_events(self) -> bool:
        """Ask the relay for a stream with all events, if housekeeping has removed some from this one.

        Returns:
            Whether the stream lacks events that it will have: it is recreated, or being filled.
        """
        identity = await self.read_identity()
        if identity is not None and identity.removed_to:
            log.info("Requesting removed events", sourceStreams=self._source_streams, epoch=identity.epoch)
            await request_recreation(self._connection, identity.epoch)
        return identity is None or bool(identity.removed_to) or not identity.complete

    def _build_subject_filter(self, partition: int) -> str:
        """Return one filter for all source streams; `decode` skips the messages of other streams in it."""
        stream_type = self._source_streams[0] if len(self._source_streams) == 1 else "*.*"
        return streams.partition_subject(partition, stream_type)

    def decode(self, message: Message) -> RecordedEvent | None:
        """Return a message's event; None if it is not an event of the source streams.

        A message that the relay cannot have published is logged and skipped. If it has replaced an event, the
        next event of that aggregate reveals the gap in the versions.
        """
        if streams.stream_type(streams.stream_of_subject(message.subject)) not in self._source_streams:
            return None
        try:
            return from_message(message.subject, message.headers, message.data)
        except (KeyError, ValueError) as error:
            self._foreign.report(subject=message.subject, at=message.sequence, error=repr(error))
            return None

    def open_aggregate(self, stream: str) -> "JetStreamAggregateReader":
        """Return a reader of one aggregate's events, from the first on."""
        return JetStreamAggregateReader(SubjectReader(self._connection, streams.subject(stream)), self.decode)


class JetStreamAggregateReader:
    """Decodes the messages of one aggregate. The port `AggregateReader` documents the methods."""

    def __init__(self, reader: SubjectReader, decode: Callable[[Message], RecordedEvent | None]) -> None:
        self._reader = reader
        self._decode = decode
        self.seek = reader.seek
        self.has_ended = reader.has_ended

    async def read_batch(self) -> list[RecordedEvent] | None:
        """Return the next events; None if no message follows, as far as the answering server knows."""
        messages = await self._reader.read_batch()
        events = [event for message in messages if (event := self._decode(message)) is not None]
        return events if messages else None
