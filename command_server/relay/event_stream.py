"""The JetStream stream of all events: creation, identity, and fenced publishing.

How it works. The stream is a copy of the recorded events and can be recreated from PostgreSQL at any time.
Each new stream gets a random epoch. Its metadata holds the epoch, the incarnation of the database, and
whether the stream is complete, that is, contains all earlier events. Two fences keep a replaced relay from
publishing. Every message names the sequence that it follows, and the first message of a batch that would not
follow it ends the batch (`BatchPublisher`). And a batch is published to `diptych.feed.<epoch>.>`, which the
stream maps to the `diptych.events.>` of the readers. The second fence is needed because a recreated stream
passes through every sequence of its predecessor, so the old relay's expected sequence could match by chance.
With the old epoch in the subject, no stream receives the batch.

Every message is signed (`contracts.feed_signatures`). The metadata names each key before the first message
that it signs. A stream is replaced if it is not signed, or with a key that was revoked since.

A stream takes fast batches if its configuration allows them; `enable_batches` changes that. While the server
refuses (NATS before 2.14 does), events are published one by one.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from time import monotonic, time
from typing import NoReturn, TypeVar
from uuid import uuid4

import nats.errors
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NotFoundError

from command_server.relay.event_messages import encode_events, feed_subjects, fits, measure_message
from command_server.relay.signals import Signals
from contracts import streams
from contracts.envelope import RecordedEvent
from contracts.key_ring import Key, Purpose
from runtime.jetstream import (
    BatchPublisher,
    Connection,
    KeysMissing,
    Message,
    StreamIdentity,
    StreamReader,
    read_last_message,
    read_stream_identity,
)
from runtime.jetstream.stream import COMPLETE_KEY, EPOCH_KEY, HISTORY_KEY, INCARNATION_KEY, KEYS_KEY
from runtime.process import logs

MAX_BATCH_SIZE = 1_000
"""Events per batch."""
PROBE = f"{streams.JETSTREAM}_PROBE"
"""Name and subject of the stream that `can_store` creates and deletes."""
READ_TIMEOUTS = (0.25, 0.5, 1.0, 2.0)
"""Seconds to wait for an answer about the stream before asking again. A leader that died while it was asked
never answers; the next one leads within some seconds."""

RETRY_INTERVAL = 60.0
"""Seconds after which a server that has refused fast batches is asked again. It may have refused because of
an error that has passed, or before the last server of its cluster was upgraded."""

log = logs.get_logger(__name__)

_Result = TypeVar("_Result")


class MessageTooLarge(Exception):
    """The NATS server refuses the message of an event because of its size; no later event is published."""


class EventStream:
    """The stream of all events, for the relay.

    Args:
        connection: to NATS.
        keeps_all: whether the stream refuses to remove old messages, which housekeeping does otherwise.
    """

    def __init__(self, connection: Connection, *, keeps_all: bool = True) -> None:
        self.signals = Signals(connection)
        self._connection = connection
        self._keeps_all = keeps_all
        self._key: Key | None = None
        """The key that signs, once the stream's metadata names it."""
        self._publisher = BatchPublisher(connection)
        self._takes_batches = False
        self._refused_in_session = 0
        """The last session of the connection in which the server has refused fast batches."""
        self._refused_at = 0.0
        """When it has refused last, on the monotonic clock."""

    async def count_accepted(self, events: Sequence[RecordedEvent]) -> int:
        """Return the number of events before the first whose message the server refuses."""
        accepted = self._count_fitting(events)
        if accepted < len(events):
            await self._connection.refresh_max_payload()  # it may have been raised since
            accepted = self._count_fitting(events)
        return accepted

    def _count_fitting(self, events: Sequence[RecordedEvent]) -> int:
        limit = self._connection.max_payload
        return next((index for index, event in enumerate(events) if not fits(event, limit)), len(events))

    def refuse(self, event: RecordedEvent) -> NoReturn:
        """Raise MessageTooLarge for an event that `count_accepted` does not count."""
        raise MessageTooLarge(
            f"{event.id} makes a message of {measure_message(event)} bytes, and the NATS server's max_payload"
            f" is {self._connection.max_payload}: raise it; no later event is published before this one"
        )

    async def read_identity(self) -> StreamIdentity | None:
        """Return the stream's identity, or None if there is no stream or no relay has created it."""
        return await self._ask(read_stream_identity)

    async def read_end(self) -> int:
        """Return the sequence of the last message according to the stream's leader; 0 if there is none.

        The identity may come from a server that lags behind, while no server leads.
        """
        message = await self._ask(lambda js: read_last_message(js, ">"))
        return message.sequence if message else 0

    async def _ask(self, read: Callable[[JetStreamContext], Awaitable[_Result]]) -> _Result:
        """Read something from JetStream, and ask again if there is no answer.

        Raises:
            TimeoutError: there is no answer within the sum of READ_TIMEOUTS.
            nats.errors.Error: JetStream cannot be reached.
        """
        for timeout in READ_TIMEOUTS[:-1]:
            with suppress(TimeoutError):
                return await read(self._connection.client.jetstream(timeout=timeout))
        return await read(self._connection.client.jetstream(timeout=READ_TIMEOUTS[-1]))

    def find_distrust(self, stream: StreamIdentity) -> str:
        """Return why the stream's messages count as unsigned; empty if they are signed."""
        try:
            self._connection.feed.check(stream)
        except KeysMissing as error:
            return str(error)
        return ""

    def find_obstacle(self, stream: StreamIdentity) -> str:
        """Return why the stream cannot be kept; empty if it can."""
        if stream.denies_purges and not self._keeps_all:
            return "its messages cannot be removed, which DIPTYCH_KEEP_STREAM asks for"
        return self.find_distrust(stream)

    async def declare_key(self, stream: StreamIdentity) -> None:
        """Record the key that signs from now on in the stream's metadata."""
        key = self._find_key()
        if key.id not in stream.keys:
            await self._set_metadata(KEYS_KEY, ",".join(sorted({*stream.keys, key.id})))
        self._key = key

    def has_changed_keys(self, stream: StreamIdentity) -> bool:
        """Return whether another key has to sign, or a key of the stream is not trusted any more."""
        is_named = self._key is not None and self._key.id in stream.keys
        return not is_named or self._find_key() is not self._key or bool(self.find_distrust(stream))

    async def decode(self, messages: Sequence[Message], epoch: str) -> list[RecordedEvent | None]:
        """Return the event of each message; None for one that no relay has published at its place."""
        return await self._connection.feed.decode_at(messages, epoch)

    def _find_key(self) -> Key:
        return self._connection.get_ring().find_signing_key(Purpose.FEED, time())

    async def recreate(self, incarnation: str) -> None:
        """Replace the stream, if there is one, by an empty one with a new epoch and as many replicas."""
        replicas = None
        with suppress(NotFoundError):
            replicas = (await self._connection.js.stream_info(streams.JETSTREAM)).config.num_replicas
            await self._connection.js.delete_stream(streams.JETSTREAM)
        config = _build_config(str(uuid4()), incarnation, self._find_key().id, deny_purge=self._keeps_all)
        await self._connection.js.add_stream(config.evolve(num_replicas=replicas))

    async def enable_batches(self, stream: StreamIdentity) -> None:
        """Let the stream take fast batches; if the server refuses, publish one by one from now on.

        A server that refuses is asked again after RETRY_INTERVAL and in the next session of the connection.
        The log shows the first rejection in a session.
        """
        self._takes_batches = stream.takes_batches
        has_refused = self._refused_in_session == self._connection.sessions
        if self._takes_batches or (has_refused and monotonic() - self._refused_at < RETRY_INTERVAL):
            return
        session, cause = self._connection.sessions, "the setting has no effect"
        config = (await self._connection.js.stream_info(streams.JETSTREAM)).config
        try:
            changed = await self._connection.js.update_stream(config.evolve(allow_batched=True))
            self._takes_batches = bool(changed.config.allow_batched)
        except APIError as error:
            cause = str(error)
        if self._takes_batches:
            return
        self._refused_in_session, self._refused_at = session, monotonic()
        if not has_refused:
            log.warning("NATS refuses fast batches; publishing events one by one", error=cause)

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
        await self._set_metadata(HISTORY_KEY, "true")

    async def declare_complete(self) -> None:
        """Record in the stream's metadata that it contains all earlier events."""
        await self._set_metadata(COMPLETE_KEY, "true")

    async def _set_metadata(self, key: str, value: str) -> None:
        config = (await self._connection.js.stream_info(streams.JETSTREAM)).config
        metadata = {**(config.metadata or {}), key: value}
        await self._connection.js.update_stream(config.evolve(metadata=metadata))

    async def publish(self, epoch: str, events: Sequence[RecordedEvent], after: int) -> int:
        """Publish events in order, and return the sequence of the last one.

        Args:
            epoch: the epoch of the stream to publish to.
            events: 1 to MAX_BATCH_SIZE events.
            after: the expected last sequence of the stream.

        Raises:
            Fenced: the stream's last sequence was not the expected one; it may hold the first events.
            BatchIncomplete, TimeoutError, nats.errors.Error: the stream may hold the first events, or all.
        """
        if self._key is None:
            raise RuntimeError("no key was declared")
        messages = encode_events(self._key, epoch, events, after)
        if self._takes_batches:
            return await self._publisher.publish(messages, after)
        return await self._publisher.publish_singly(messages, after)

    async def open_reader(self, epoch: str, start: int) -> StreamReader:
        """Return a reader that begins at sequence `start`."""
        return await StreamReader.open(self._connection, epoch, start)


def _build_config(epoch: str, incarnation: str, key_id: str, *, deny_purge: bool) -> api.StreamConfig:
    """Return the configuration of a new stream: it keeps its messages, and refuses new ones when full."""
    return api.StreamConfig(
        name=streams.JETSTREAM,
        description="Diptych's events; a copy of the recorded events, safe to delete: the relay recreates it",
        subjects=[feed_subjects(epoch)],
        subject_transform=api.SubjectTransform(src=feed_subjects(epoch), dest=streams.SUBJECTS),
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.NEW,
        deny_delete=True,
        deny_purge=deny_purge,
        allow_direct=True,
        allow_atomic=True,  # for relays of earlier releases, which may take over during an upgrade
        metadata={EPOCH_KEY: epoch, INCARNATION_KEY: incarnation, COMPLETE_KEY: "false", KEYS_KEY: key_id},
    )
