"""The JetStream stream of all events: creation, identity, and fenced publishing.

How it works. The stream is a copy of the recorded events and can be recreated from PostgreSQL at any time.
Each new stream gets a random epoch. Its metadata holds the epoch, the incarnation of the database, and
whether the stream is complete, that is, contains all earlier events. Two fences keep a replaced relay from
publishing. A batch is atomic and names the sequence that it follows; JetStream refuses it if that is not the
stream's last. And a batch is published to `diptych.feed.<epoch>.>`, which the stream maps to the
`diptych.events.>` of the readers. The second fence is needed because a recreated stream passes through every
sequence of its predecessor, so the old relay's expected sequence could match by chance. With the old epoch in
the subject, no stream receives the batch.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import NoReturn
from uuid import uuid4

import nats.errors
from nats.js import api
from nats.js.errors import APIError, NotFoundError

from contracts import streams
from contracts.envelope import RecordedEvent, from_message, to_headers
from runtime.jetstream import (
    UNREACHABLE,
    Connection,
    Message,
    Receive,
    StreamIdentity,
    StreamReader,
    read_stream_identity,
)
from runtime.jetstream.stream import COMPLETE_KEY, EPOCH_KEY, HISTORY_KEY, INCARNATION_KEY

MAX_BATCH_SIZE = 1_000
"""Messages per atomic batch, a limit of the NATS server."""
MAX_POSITION = 2**63 - 1
PROBE = f"{streams.JETSTREAM}_PROBE"
"""Name and subject of the stream that `can_store` creates and deletes."""
WRONG_LAST_SEQUENCE = 10071
"""JetStream's error code: the expected sequence is not the stream's last."""

_EVENTS = streams.SUBJECTS.removesuffix(">")


USUAL_HEADER_BYTES = 64 * 1024
"""Bytes that no event's headers exceed; smaller events need no measuring."""
BATCH_HEADER_BYTES = 200
"""Bytes of the headers of batch and fence."""


class Fenced(Exception):
    """The stream's last sequence is not the expected one: another client has published."""


class MessageTooLarge(Exception):
    """The NATS server refuses the message of an event because of its size; no later event is published."""


class EventStream:
    """The stream of all events, for the relay."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def count_accepted(self, events: Sequence[RecordedEvent]) -> int:
        """Return the number of events before the first whose message the server refuses."""
        accepted = self._count_fitting(events)
        if accepted < len(events):
            await self._connection.refresh_max_payload()  # it may have been raised since
            accepted = self._count_fitting(events)
        return accepted

    def _count_fitting(self, events: Sequence[RecordedEvent]) -> int:
        limit = self._connection.max_payload
        for index, event in enumerate(events):
            if len(event.data) + USUAL_HEADER_BYTES > limit and _measure(event) > limit:
                return index
        return len(events)

    def refuse(self, event: RecordedEvent) -> NoReturn:
        """Raise MessageTooLarge for an event that `count_accepted` does not count."""
        raise MessageTooLarge(
            f"{event.id} makes a message of {_measure(event)} bytes, and the NATS server's max_payload is"
            f" {self._connection.max_payload}: raise it; no later event is published before this one"
        )

    async def read_identity(self) -> StreamIdentity | None:
        """Return the stream's identity, or None if there is no stream or no relay has created it."""
        return await read_stream_identity(self._connection.js)

    async def recreate(self, incarnation: str) -> None:
        """Replace the stream, if there is one, by an empty one with a new epoch."""
        with suppress(NotFoundError):
            await self._connection.js.delete_stream(streams.JETSTREAM)
        await self._connection.js.add_stream(_build_config(str(uuid4()), incarnation))

    async def can_store(self) -> bool:
        """Return whether JetStream stores a message in another, temporary stream."""
        js = self._connection.js
        try:
            await js.add_stream(name=PROBE, subjects=[PROBE], storage=api.StorageType.FILE)
            await js.publish(PROBE, b"")
        except nats.errors.Error:
            return False
        finally:
            with suppress(nats.errors.Error):
                await js.delete_stream(PROBE)
        return True

    async def declare_history(self) -> None:
        """Record in the stream's metadata that it has all events that had been published before."""
        await self._set_metadata(HISTORY_KEY)

    async def declare_complete(self) -> None:
        """Record in the stream's metadata that it contains all earlier events."""
        await self._set_metadata(COMPLETE_KEY)

    async def _set_metadata(self, key: str) -> None:
        info = await self._connection.js.stream_info(streams.JETSTREAM)
        metadata = {**(info.config.metadata or {}), key: "true"}
        await self._connection.js.update_stream(info.config.evolve(metadata=metadata))

    async def publish(self, epoch: str, events: Sequence[RecordedEvent], after: int) -> int:
        """Publish events as one atomic batch, and return the sequence of the last one.

        Args:
            epoch: the epoch of the stream to publish to.
            events: 1 to MAX_BATCH_SIZE events.
            after: the expected last sequence of the stream.

        Raises:
            Fenced: the stream's last sequence is not `after`; nothing was published.
            nats.errors.Error: the events may or may not have been published.
        """
        *first_messages, last_message = _encode_batch(epoch, events, after)
        for subject, data, headers in first_messages:
            await self._connection.client.publish(subject, data, headers=headers)
        subject, data, headers = last_message
        try:
            acknowledgement = await self._connection.js.publish(subject, data, headers=headers)
        except APIError as error:
            if error.err_code == WRONG_LAST_SEQUENCE:
                raise Fenced(f"expected last sequence {after}: the stream has a different one") from error
            raise
        return acknowledgement.seq

    async def open_reader(self, epoch: str, start: int) -> StreamReader:
        """Return a reader that begins at sequence `start`."""
        return await StreamReader.open(self._connection, epoch, start)

    async def read_last_position(self, last_sequence: int) -> int:
        """Return the position of the stream's last event, or 0 if the stream is empty."""
        if last_sequence == 0:
            return 0
        message = await self._connection.js.get_msg(streams.JETSTREAM, seq=last_sequence)
        return int((message.headers or {})["diptych-position"])

    def subscribe_notifications(self) -> AbstractAsyncContextManager[asyncio.Event]:
        """Yield an event that is set whenever a command server has committed events."""
        return self._subscribe(streams.WAKE_SUBJECT)

    def subscribe_recreation_requests(self, epoch: str) -> AbstractAsyncContextManager[asyncio.Event]:
        """Yield an event that is set whenever a reader needs removed messages of this epoch."""
        return self._subscribe(streams.RECREATE_SUBJECT, epoch.encode())

    @asynccontextmanager
    async def subscribe_publication_requests(self, receive: Callable[[str], None]) -> AsyncIterator[None]:
        """Call `receive` with the reply subject of each request of a reader (`PublicationClock`)."""
        async with self._receive(
            streams.PUBLISHED_SUBJECT, lambda _subject, reply, _data, _headers: receive(reply)
        ):
            yield

    async def confirm_publication(self, reply: str, epoch: str, sequence: int) -> None:
        """Reply to a publication request. A reply that gets lost is requested again."""
        with suppress(*UNREACHABLE):
            await self._connection.client.publish(reply, f"{epoch}/{sequence}".encode())

    @asynccontextmanager
    async def _subscribe(self, subject: str, data: bytes | None = None) -> AsyncIterator[asyncio.Event]:
        """Yield an event that is set by the messages of a subject, or by those with this data."""
        notified = asyncio.Event()

        def receive(_subject: str, _reply: str, received: bytes, _headers: object) -> None:
            if data in (None, received):
                notified.set()

        async with self._receive(subject, receive):
            yield notified

    @asynccontextmanager
    async def _receive(self, subject: str, receive: Receive) -> AsyncIterator[None]:
        """Call a function with each message of a subject."""
        subscription = await self._connection.subscribe(subject, receive)
        try:
            yield
        finally:
            with suppress(nats.errors.Error):
                await self._connection.unsubscribe(subscription)


def decode_event(message: Message) -> RecordedEvent | None:
    """Return the message's event, or None if no relay can have published the message."""
    try:
        event = from_message(message.subject, message.headers, message.data)
    except (KeyError, ValueError, IndexError):
        return None
    return event if 0 < event.position <= MAX_POSITION else None


def is_copy(event: RecordedEvent, recorded: RecordedEvent | None) -> bool:
    """Return whether an event from the stream equals the event recorded at its position."""
    if recorded is None:
        return False
    return (event.stream, event.version, event.type, event.data) == (
        recorded.stream,
        recorded.version,
        recorded.type,
        recorded.data,
    )


def _measure(event: RecordedEvent) -> int:
    """Return the bytes of an event's message with its headers, as NATS counts them."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in to_headers(event).items())
    return len(f"NATS/1.0\r\n{lines}\r\n".encode()) + BATCH_HEADER_BYTES + len(event.data)


def _encode_batch(
    epoch: str, events: Sequence[RecordedEvent], after: int
) -> list[tuple[str, bytes, dict[str, str]]]:
    """Return subject, data and headers of each message of a batch, with the headers of the fence."""
    prefix, batch_id = f"diptych.feed.{epoch}.", uuid4().hex
    messages = []
    for number, event in enumerate(events, 1):
        headers = to_headers(event)
        if len(events) > 1:
            headers["Nats-Batch-Id"] = batch_id
            headers["Nats-Batch-Sequence"] = str(number)
        messages.append((prefix + streams.subject(event.stream).removeprefix(_EVENTS), event.data, headers))
    messages[0][2]["Nats-Expected-Last-Sequence"] = str(after)
    if len(events) > 1:
        messages[-1][2]["Nats-Batch-Commit"] = "1"
    return messages


def _build_config(epoch: str, incarnation: str) -> api.StreamConfig:
    """Return the configuration of a new stream: it keeps all messages, and refuses new ones when full."""
    return api.StreamConfig(
        name=streams.JETSTREAM,
        description="Diptych's events; a copy of the recorded events, safe to delete: the relay recreates it",
        subjects=[f"diptych.feed.{epoch}.>"],
        subject_transform=api.SubjectTransform(src=f"diptych.feed.{epoch}.>", dest=streams.SUBJECTS),
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.NEW,
        allow_atomic=True,
        allow_direct=True,
        metadata={EPOCH_KEY: epoch, INCARNATION_KEY: incarnation, COMPLETE_KEY: "false"},
    )
