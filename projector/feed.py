"""The projector's side of JetStream: which subjects a projection hears, and events out of messages."""

from collections.abc import Iterable, Sequence

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

log = logs.get("feed")


def event_of(message: Message) -> RecordedEvent | None:
    """Return the event that a message carries, or None where no relay can have published it.

    Such a message is passed over. Should it stand in an event's place, the event's version is missing,
    which the next one shows.
    """
    try:
        return from_message(message.subject, message.headers, message.data)
    except (KeyError, ValueError) as error:
        log.error(
            "Message is no event", subject=message.subject, sequence=message.sequence, error=repr(error)
        )
        return None


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

    async def open(self, epoch: str, partitions: Iterable[int], start: int) -> StreamReader:
        """Return a reader of what is heard in these partitions, from sequence `start` on."""
        subjects = [
            streams.partition_subject(partition, stream_type)
            for partition in sorted(partitions)
            for stream_type in self._hears
        ]
        return await StreamReader.open(self._connection, epoch, start, subjects)

    async def history(self, stream: str) -> list[RecordedEvent]:
        """Return all events of one aggregate that the stream holds, oldest first."""
        messages = read_subject(self._connection.js, streams.subject(stream))
        return [event async for message in messages if (event := event_of(message)) is not None]
