"""The projector's side of JetStream: the events of a projection's source streams.

How it works. All projections of a process share one reading of the stream (`SharedReader`): each has a cursor
of its own, and messages are decoded once. The consumers acknowledge nothing: the checkpoints are stored with
the views.
"""

from collections.abc import Mapping, Sequence

from contracts import streams
from contracts.envelope import RecordedEvent
from runtime.jetstream import (
    Connection,
    Cursor,
    SharedReader,
    StreamCheck,
    StreamIdentity,
    SubjectReader,
    read_stream_identity,
    request_recreation,
)
from runtime.process import logs

log = logs.get_logger(__name__)


class JetStreamEventFeed:
    """The events of some stream types. The port `EventFeed` documents the methods.

    Args:
        connection: to NATS.
        shared: the reading of the stream for all projections of the process.
        source_streams: the stream types, `<context>.<aggregate>`.
    """

    def __init__(self, connection: Connection, shared: SharedReader, source_streams: Sequence[str]) -> None:
        self._connection = connection
        self._shared = shared
        self._source_streams = source_streams

    async def read_identity(self) -> StreamIdentity | None:
        """Return the JetStream stream's identity and extent; None if the stream does not exist."""
        return await read_stream_identity(self._connection.js)

    def get_check(self) -> StreamCheck | None:
        """Return the last check of the stream."""
        return self._shared.latest_check

    async def open(self, epoch: str, starts: Mapping[int, int]) -> Cursor:
        """Return a reader of these partitions, each from its start sequence on.

        Raises:
            ReaderLost: the stream has another epoch, or does not exist.
            nats.errors.Error: JetStream is unreachable.
        """
        return await self._shared.open(epoch, starts, self._source_streams)

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

    def open_aggregate(self, stream: str) -> "JetStreamAggregateReader":
        """Return a reader of one aggregate's events, from the first on."""
        return JetStreamAggregateReader(SubjectReader(self._connection, streams.subject(stream)))


class JetStreamAggregateReader:
    """Decodes the messages of one aggregate. The port `AggregateReader` documents the methods."""

    def __init__(self, reader: SubjectReader) -> None:
        self._reader = reader
        self.seek = reader.seek
        self.has_ended = reader.has_ended

    async def read_batch(self) -> list[RecordedEvent] | None:
        """Return the next events; None if no message follows, as far as the answering server knows."""
        return await self._reader.read_events()
