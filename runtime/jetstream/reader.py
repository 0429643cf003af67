"""A fast reader of the event stream that detects every gap.

How it works:

1. `open` creates an ephemeral pull consumer that starts at a sequence and needs no acknowledgements. The
   owner of the reader stores its own checkpoint with its data. A consumer dies with its stream, so checking
   the stream's epoch after creating the consumer proves that both belong together.
2. Pull requests are kept outstanding over one plain subscription, three times as fast as the client's
   `fetch`: whenever at most PULL messages are requested or buffered, the reader requests PULL more. Each
   request is bounded in bytes, too, and none is sent while MAX_BUFFERED_BYTES are buffered: the server closes
   the connection, with all its readers, when more than 64 MiB wait for it.
3. The server numbers the messages that it delivers to the consumer. A number that is not the next one, an
   error status, a new session of the connection or a missing heartbeat make the reader lost.
4. A lost reader first returns its buffered messages, which have no gap, and then raises `ReaderLost`. The
   owner opens another reader from its checkpoint.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic

import msgspec
import nats.errors
from nats.aio.subscription import Subscription
from nats.js import api

from contracts import streams
from runtime.jetstream.connection import Connection
from runtime.jetstream.stream import Message, read_stream_identity

PULL = 1_000
"""Messages per pull request; up to twice as many are buffered."""
MIN_PULL_BYTES = 1024 * 1024
"""Bytes per pull request, at least; more if the server accepts larger messages, since each has to fit."""
MESSAGE_OVERHEAD = 64 * 1024
"""Bytes that a message may have in subjects, besides its headers and data."""
ENDS_OF_REQUESTS = ("Message Size Exceeds MaxBytes", "Batch Completed")
"""Descriptions of status 409 that end a pull request with a maximum of bytes: its bytes or its messages are
used up. All others are errors."""
MAX_BUFFERED_BYTES = 4 * 1024 * 1024
"""Bytes of buffered messages above which nothing is requested."""
PULL_EXPIRY = 10.0
"""Seconds until a pull request expires; the reader then sends the next one."""
HEARTBEAT = 1.0
"""Seconds without a message after which the server sends a heartbeat. After three times as long without
either, the server counts as unresponsive."""
INACTIVE_THRESHOLD = 30.0
"""Seconds without a pull request after which the server deletes the consumer."""


class ReaderLost(Exception):
    """The reader may miss messages from here on. Open another one from the last checkpoint."""


class StreamReader:
    """Reads messages of some subjects in order, from one sequence on; created by `open`."""

    def __init__(self, connection: Connection, arrived: asyncio.Event) -> None:
        self._connection = connection
        self._session = connection.sessions
        self._consumer = ""
        self._inbox = connection.client.new_inbox()
        self._subscription: Subscription | None = None
        self._buffer: deque[Message] = deque()
        self._buffered_bytes = 0
        self._arrived = arrived
        self._requested = 0
        """Messages of outstanding pull requests that have not been delivered."""
        self._delivered = 0
        """Messages delivered to this consumer; the server sends the same count with every message."""
        self._last_received = monotonic()
        self._loss = ""
        """The reason for `ReaderLost`, or empty."""

    @classmethod
    async def open(
        cls,
        connection: Connection,
        epoch: str,
        start: int,
        subjects: Sequence[str] = (streams.SUBJECTS,),
        arrived: asyncio.Event | None = None,
    ) -> "StreamReader":
        """Return a reader of the stream with this epoch.

        Args:
            connection: to NATS.
            epoch: the epoch that `start` belongs to.
            start: the first sequence to read, 1 or higher.
            subjects: subject filters, which must not overlap.
            arrived: set when `take` has something to return or raise. Several readers may share it.

        Raises:
            ReaderLost: there is no stream, or it has another epoch.
            nats.errors.Error: JetStream cannot be reached.
        """
        reader = cls(connection, arrived or asyncio.Event())
        try:
            await reader._open(epoch, start, subjects)
        except BaseException:
            await reader.close()
            raise
        return reader

    async def read_batch(self, limit: int, max_wait: float) -> list[Message]:
        """Return the buffered messages; if there are none, wait for the first.

        Args:
            limit: maximum number of messages.
            max_wait: seconds after which the list is returned empty.

        Raises:
            ReaderLost: messages may be missing from here on.
        """
        if not self._buffer and not self._loss:
            self._arrived.clear()
            await self._pull()
            with suppress(TimeoutError):
                async with asyncio.timeout(max_wait):
                    await self._arrived.wait()
        return await self.take(limit)

    async def take(self, limit: int) -> list[Message]:
        """Return up to `limit` buffered messages without waiting.

        Raises:
            ReaderLost: messages may be missing from here on.
        """
        if not self._buffer:
            self._check()
        count = min(limit, len(self._buffer))
        messages = [self._buffer.popleft() for _ in range(count)]
        self._buffered_bytes -= sum(len(message.data) for message in messages)
        await self._pull()
        return messages

    async def close(self) -> None:
        """Stop reading, and delete the consumer if the server is reachable."""
        with suppress(nats.errors.Error, OSError, TimeoutError):
            if self._subscription is not None:
                await self._connection.unsubscribe(self._subscription)
            if self._consumer and self._connection.connected:
                await self._connection.js.delete_consumer(streams.JETSTREAM, self._consumer)

    async def _open(self, epoch: str, start: int, subjects: Sequence[str]) -> None:
        self._subscription = await self._connection.subscribe(self._inbox, self._receive)
        self._consumer = secrets.token_hex(8)  # known before the answer, which a cancellation may prevent
        config = api.ConsumerConfig(
            name=self._consumer,
            deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=start,
            ack_policy=api.AckPolicy.NONE,
            filter_subjects=list(subjects),
            inactive_threshold=INACTIVE_THRESHOLD,
            mem_storage=True,
            num_replicas=1,
        )
        try:
            await self._connection.js.add_consumer(streams.JETSTREAM, config)
        except nats.js.errors.NotFoundError as error:
            raise ReaderLost("there is no stream") from error
        # The epoch is read after the consumer was created: had the stream been replaced in between, the
        # consumer would be gone with the old one.
        identity = await read_stream_identity(self._connection.js)
        if identity is None or identity.epoch != epoch:
            raise ReaderLost("the stream has another epoch")
        await self._pull()

    async def _pull(self) -> None:
        """Request PULL more messages unless enough are requested or buffered."""
        if (
            self._loss
            or self._requested + len(self._buffer) > PULL
            or self._buffered_bytes > MAX_BUFFERED_BYTES
        ):
            return
        request = {
            "batch": PULL,
            "max_bytes": max(MIN_PULL_BYTES, self._connection.client.max_payload) + MESSAGE_OVERHEAD,
            "expires": int(PULL_EXPIRY * 1e9),
            "idle_heartbeat": int(HEARTBEAT * 1e9),
        }
        if self._requested == 0:
            self._last_received = monotonic()  # without a request the server sends no heartbeats
        self._requested += PULL
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{streams.JETSTREAM}.{self._consumer}"
        try:
            await self._connection.client.publish(subject, msgspec.json.encode(request), self._inbox)
        except nats.errors.Error as error:
            self._lose(str(error))

    def _receive(self, subject: str, reply: str, data: bytes, headers: Mapping[str, str]) -> None:
        self._last_received = monotonic()
        if not reply:
            self._receive_status(headers)
            return
        # $JS.ACK.[domain.account.]stream.consumer.tries.sequence.delivered.time.pending[.token]
        parts = reply.split(".")
        at = 5 if len(parts) == 9 else 7  # the index of `sequence`
        self._requested -= 1
        self._delivered += 1
        if int(parts[at + 1]) != self._delivered:
            self._lose(f"expected message {self._delivered}, received {parts[at + 1]}")
        if self._loss:
            return  # a message after a gap must not be returned
        published_at = datetime.fromtimestamp(int(parts[at + 2]) / 1e9, UTC)
        self._buffered_bytes += len(data)
        self._buffer.append(Message(subject, headers, data, int(parts[at]), int(parts[at + 3]), published_at))
        self._arrived.set()

    def _receive_status(self, headers: Mapping[str, str]) -> None:
        """Handle a message without a payload: a heartbeat, the end of a pull request, or an error."""
        match headers.get("Status"):
            case "100":  # heartbeat
                pass
            case "404" | "408" | "409" if _ends_pull_request(headers):
                self._requested -= int(headers.get("Nats-Pending-Messages", PULL))
                self._arrived.set()
            case status:
                self._lose(f"{status} {headers.get('Description', '')}")

    def _check(self) -> None:
        """Raise ReaderLost if messages may be missing."""
        if self._connection.sessions != self._session or not self._connection.connected:
            self._lose("the connection was lost")
        elif self._requested and monotonic() - self._last_received > 3 * HEARTBEAT:
            self._lose("the server does not respond")
        if self._loss:
            raise ReaderLost(self._loss)

    def _lose(self, reason: str) -> None:
        self._loss = self._loss or reason  # the first reason is the cause of the others
        self._arrived.set()


def _ends_pull_request(headers: Mapping[str, str]) -> bool:
    """Return whether a status means the end of a pull request rather than an error."""
    return headers.get("Status") != "409" or headers.get("Description") in ENDS_OF_REQUESTS
