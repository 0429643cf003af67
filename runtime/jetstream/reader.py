"""Reads the stream from a sequence on, fast, and says so when it can no longer vouch that nothing is missing.

The consumer is ephemeral and acknowledges nothing: the reader's owner keeps its progress with its data. Pull
requests are kept outstanding over one plain subscription (three times as fast as the client's `fetch`).
"""

import asyncio
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
from runtime.jetstream.stream import Message, stream_identity

PULL = 1_000
"""Messages asked for at once; up to twice as many wait for the owner."""
EXPIRES = 10.0
"""Seconds after which a pull request ends, and the next is sent."""
HEARTBEAT = 1.0
"""Seconds of silence after which the server sends a sign of life; three times that means it is gone."""
INACTIVE = 30.0
"""Seconds after which the server forgets a consumer that nobody pulls from."""


class ReaderLost(Exception):
    """The reader cannot go on without gaps; open another from the last progress."""


class StreamReader:
    """Messages of some subjects, in order, from one sequence on; made by `open`."""

    def __init__(self, connection: Connection, arrived: asyncio.Event) -> None:
        self._connection = connection
        self._session = connection.sessions
        self._consumer = ""
        self._inbox = connection.client.new_inbox()
        self._subscription: Subscription | None = None
        self._waiting: deque[Message] = deque()
        self._arrived = arrived
        self._asked_for = 0
        self._delivered = 0
        self._heard = monotonic()
        self._lost = ""

    @classmethod
    async def open(
        cls,
        connection: Connection,
        epoch: str,
        start: int,
        subjects: Sequence[str] = (streams.SUBJECTS,),
        arrived: asyncio.Event | None = None,
    ) -> "StreamReader":
        """Return a reader of the stream of this epoch.

        Args:
            connection: to NATS.
            epoch: of the stream that `start` refers to.
            start: the first sequence to read, 1 or higher.
            subjects: which subjects to read; they must not overlap.
            arrived: is set when there is something to `take`; for who waits for several readers at once.

        Raises:
            ReaderLost: the stream is another one now, or there is none.
            nats.errors.Error: JetStream cannot be reached.
        """
        reader = cls(connection, arrived or asyncio.Event())
        try:
            await reader._open(epoch, start, subjects)
        except BaseException:
            await reader.close()
            raise
        return reader

    async def batch(self, limit: int, wait: float) -> list[Message]:
        """Return the messages that are there, after waiting for the first.

        Args:
            limit: how many at most.
            wait: seconds after which to return none.

        Raises:
            ReaderLost: messages may be missing from here on.
        """
        if not self._waiting and not self._lost:
            self._arrived.clear()
            await self._pull()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._arrived.wait()
        return await self.take(limit)

    async def take(self, limit: int) -> list[Message]:
        """Return the messages that are there, without waiting for any.

        Raises:
            ReaderLost: messages may be missing from here on.
        """
        if not self._waiting:
            self._check()
        taken = min(limit, len(self._waiting))
        messages = [self._waiting.popleft() for _ in range(taken)]
        await self._pull()
        return messages

    async def sent_in_all(self) -> int | None:
        """Ask the server how many messages it has sent this reader; None while it holds more for it.

        Raises:
            nats.errors.Error: JetStream cannot be reached.
        """
        info = await self._connection.js.consumer_info(streams.JETSTREAM, self._consumer)
        return info.delivered.consumer_seq if info.delivered and info.num_pending == 0 else None

    async def close(self) -> None:
        """Stop reading, and tell the server where it can be told."""
        with suppress(nats.errors.Error, OSError, TimeoutError):
            if self._subscription is not None:
                await self._connection.forget(self._subscription)
            if self._consumer and self._connection.connected:
                await self._connection.js.delete_consumer(streams.JETSTREAM, self._consumer)

    async def _open(self, epoch: str, start: int, subjects: Sequence[str]) -> None:
        self._subscription = await self._connection.listen(self._inbox, self._receive)
        config = api.ConsumerConfig(
            deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=start,
            ack_policy=api.AckPolicy.NONE,
            filter_subjects=list(subjects),
            inactive_threshold=INACTIVE,
            mem_storage=True,
            num_replicas=1,
        )
        try:
            info = await self._connection.js.add_consumer(streams.JETSTREAM, config)
        except nats.js.errors.NotFoundError as error:
            raise ReaderLost("there is no stream") from error
        self._consumer = info.name
        # Only now, since a consumer dies with its stream: while it lives, it reads this epoch.
        identity = await stream_identity(self._connection.js)
        if identity is None or identity.epoch != epoch:
            raise ReaderLost("the stream is another one now")
        await self._pull()

    async def _pull(self) -> None:
        """Ask for more once fewer than PULL messages are asked for or waiting."""
        if self._lost or self._asked_for + len(self._waiting) > PULL:
            return
        request = {"batch": PULL, "expires": int(EXPIRES * 1e9), "idle_heartbeat": int(HEARTBEAT * 1e9)}
        if self._asked_for == 0:
            self._heard = monotonic()
        self._asked_for += PULL
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{streams.JETSTREAM}.{self._consumer}"
        try:
            await self._connection.client.publish(subject, msgspec.json.encode(request), self._inbox)
        except nats.errors.Error as error:
            self._lose(str(error))

    def _receive(self, subject: str, reply: str, data: bytes, headers: Mapping[str, str]) -> None:
        self._heard = monotonic()
        if not reply:
            self._receive_status(headers)
            return
        # $JS.ACK.[domain.account.]stream.consumer.tries.sequence.delivered.time.pending[.token]
        parts = reply.split(".")
        at = 5 if len(parts) == 9 else 7
        self._asked_for -= 1
        self._delivered += 1
        if int(parts[at + 1]) != self._delivered:
            self._lose(f"message {self._delivered} was followed by {parts[at + 1]}")
        if self._lost:
            return
        published_at = datetime.fromtimestamp(int(parts[at + 2]) / 1e9, UTC)
        self._waiting.append(
            Message(subject, headers, data, int(parts[at]), int(parts[at + 3]), published_at)
        )
        self._arrived.set()

    def _receive_status(self, headers: Mapping[str, str]) -> None:
        """Take note of a heartbeat, of a pull request's end, or of bad news."""
        match headers.get("Status"):
            case "100":
                pass
            case "404" | "408":
                self._asked_for -= int(headers.get("Nats-Pending-Messages", PULL))
                self._arrived.set()
            case status:
                self._lose(f"{status} {headers.get('Description', '')}")

    def _check(self) -> None:
        """Raise ReaderLost if anything speaks against waiting on."""
        if self._connection.sessions != self._session or not self._connection.connected:
            self._lose("the connection was lost")
        elif self._asked_for and monotonic() - self._heard > 3 * HEARTBEAT:
            self._lose("the server has gone silent")
        if self._lost:
            raise ReaderLost(self._lost)

    def _lose(self, reason: str) -> None:
        self._lost = self._lost or reason
        self._arrived.set()
