"""The JetStream stream as the relay writes it: fenced batches, and an identity of its own.

Two fences keep a relay whose time has passed out of the stream. A batch names the sequence that it follows,
and is refused whole if that is not the stream's last. And it is published to a subject that names the epoch,
which the stream maps to the subjects that readers know: a stream that was made anew does not hear it.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

import nats.errors
from nats.aio.msg import Msg
from nats.js import api
from nats.js.errors import APIError, NotFoundError

from contracts import streams
from contracts.envelope import RecordedEvent, from_message, to_headers
from runtime.jetstream import Connection, Message, StreamIdentity, StreamReader, stream_identity
from runtime.jetstream.stream import COMPLETE, EPOCH, INCARNATION

BATCH = 1_000
"""Messages in one atomic batch; the server takes no more."""
LAST_POSITION = 2**63 - 1
WRONG_LAST_SEQUENCE = 10071
"""JetStream's code for an expected sequence that is not the stream's last."""

_EVENTS = streams.SUBJECTS.removesuffix(">")


class Fenced(Exception):
    """The stream does not end where this relay believes: somebody else has published."""


class EventStream:
    """The one stream of all events."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def identity(self) -> StreamIdentity | None:
        """Return which stream this is, or None where there is none that a relay made."""
        return await stream_identity(self._connection.js)

    async def recreate(self, incarnation: str) -> None:
        """Make an empty stream with a new epoch, in the place of what was there."""
        with suppress(NotFoundError):
            await self._connection.js.delete_stream(streams.JETSTREAM)
        await self._connection.js.add_stream(_config(str(uuid4()), incarnation))

    async def declare_complete(self) -> None:
        """Say in the stream's metadata that it holds all earlier events."""
        info = await self._connection.js.stream_info(streams.JETSTREAM)
        metadata = {**(info.config.metadata or {}), COMPLETE: "true"}
        await self._connection.js.update_stream(info.config.evolve(metadata=metadata))

    async def publish(self, epoch: str, events: Sequence[RecordedEvent], after: int) -> int:
        """Publish events as one atomic batch, and return the sequence of the last.

        Args:
            epoch: of the stream that they are meant for.
            events: one to BATCH events.
            after: the stream's last sequence before them.

        Raises:
            Fenced: the stream's last sequence is another one; nothing was published.
            nats.errors.Error: whether they were published is not known.
        """
        *others, last = _messages(epoch, events, after)
        for subject, data, headers in others:
            await self._connection.client.publish(subject, data, headers=headers)
        subject, data, headers = last
        try:
            acknowledgement = await self._connection.js.publish(subject, data, headers=headers)
        except APIError as error:
            if error.err_code == WRONG_LAST_SEQUENCE:
                raise Fenced(f"the stream does not end at {after}") from error
            raise
        return acknowledgement.seq

    async def read(self, epoch: str, start: int) -> StreamReader:
        """Return a reader of all events from a sequence on."""
        return await StreamReader.open(self._connection, epoch, start)

    async def last_position(self, last_sequence: int) -> int:
        """Return the position of the stream's last event, 0 where there is none."""
        if last_sequence == 0:
            return 0
        message = await self._connection.js.get_msg(streams.JETSTREAM, seq=last_sequence)
        return int((message.headers or {})["diptych-position"])

    @asynccontextmanager
    async def wakes(self) -> AsyncIterator[asyncio.Event]:
        """Give an event that is set whenever a command server says that the outbox holds something new."""
        woken = asyncio.Event()

        async def wake(_message: Msg) -> None:
            woken.set()

        subscription = await self._connection.client.subscribe(streams.WAKE_SUBJECT, cb=wake)
        try:
            yield woken
        finally:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()


def event_of(message: Message) -> RecordedEvent | None:
    """Return the event that a message carries; None where no relay can have published it."""
    try:
        event = from_message(message.subject, message.headers, message.data)
    except (KeyError, ValueError, IndexError):
        return None
    return event if 0 < event.position <= LAST_POSITION else None


def is_copy(event: RecordedEvent, recorded: RecordedEvent | None) -> bool:
    """Return whether an event from the stream is what is recorded at its position."""
    if recorded is None:
        return False
    return (event.stream, event.version, event.type, event.data) == (
        recorded.stream,
        recorded.version,
        recorded.type,
        recorded.data,
    )


def _messages(
    epoch: str, events: Sequence[RecordedEvent], after: int
) -> list[tuple[str, bytes, dict[str, str]]]:
    """Return subject, data and headers of each message of a batch."""
    prefix, batch = f"diptych.feed.{epoch}.", uuid4().hex
    messages = []
    for number, event in enumerate(events, 1):
        headers = to_headers(event)
        if len(events) > 1:
            headers["Nats-Batch-Id"] = batch
            headers["Nats-Batch-Sequence"] = str(number)
        messages.append((prefix + streams.subject(event.stream).removeprefix(_EVENTS), event.data, headers))
    messages[0][2]["Nats-Expected-Last-Sequence"] = str(after)
    if len(events) > 1:
        messages[-1][2]["Nats-Batch-Commit"] = "1"
    return messages


def _config(epoch: str, incarnation: str) -> api.StreamConfig:
    """Return how a new stream is set up: it keeps everything, and refuses what it cannot keep."""
    return api.StreamConfig(
        name=streams.JETSTREAM,
        description="Diptych's events; a copy of the outbox, safe to delete: the relay makes it anew",
        subjects=[f"diptych.feed.{epoch}.>"],
        subject_transform=api.SubjectTransform(src=f"diptych.feed.{epoch}.>", dest=streams.SUBJECTS),
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.NEW,
        allow_atomic=True,
        allow_direct=True,
        metadata={EPOCH: epoch, INCARNATION: incarnation, COMPLETE: "false"},
    )
