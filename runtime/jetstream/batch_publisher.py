"""Publishes batches of messages so that the stream always holds a prefix of each batch, in order.

How it works. Every message names the sequence that it follows, and JetStream refuses a message that would
not follow it. Single messages that are sent without waiting are no chain, though: after a refused one the
next may fit again. A fast batch (NATS 2.14, `allow_batched` on the stream) is a chain: the first message that
is refused or missing ends the batch, and the server refuses all later ones.

- A message's reply subject is `<inbox>.<batch>.<flow>.fail.<number>.<operation>.$FI`. The server answers
  there: with an `ack` for every `flow` messages, with errors and gaps, and at last with an acknowledgement.
- Only an acknowledgement of all messages counts. After any other answer, or none, the caller must read the
  stream's end before it publishes again. An `ack` only shows that the server is at work.
- One batch is in flight at a time. With two, the first could get lost while another client fills exactly its
  places, and the second would be stored after a hole.
- The inbox is subscribed to before the first message is sent, because the server drops a message whose reply
  subject has no subscriber. Each session of the connection gets a new inbox.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec
import nats.errors
from nats.aio.subscription import Subscription
from nats.js.errors import APIError, NoStreamResponseError

from runtime.jetstream.connection import Connection

ANSWER_TIMEOUT = 2.0
"""Seconds without any answer of the server after which a batch is given up."""
FLOW = 50
"""Messages for each `ack` of the server."""
WRONG_LAST_SEQUENCE = 10071
"""JetStream's error code: the expected sequence is not the stream's last."""

_FENCE = "Nats-Expected-Last-Sequence"
_START, _APPEND, _COMMIT = 0, 1, 2
"""The operations of a batch's first, middle and last message."""


class Fenced(Exception):
    """The stream's last sequence is not the expected one: another client has published."""


class BatchIncomplete(Exception):
    """The server has ended a batch before its last message; the stream may hold the first messages."""


class OutgoingMessage(NamedTuple):
    """A message to publish; publishing adds the fence to its headers."""

    subject: str
    data: bytes
    headers: dict[str, str]


class _Answer(msgspec.Struct):
    type: str = ""
    """`ack`, `gap` or `err` during a batch; empty for the acknowledgement at its end."""
    seq: int = 0
    count: int = 1
    error: dict[str, Any] | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode


class BatchPublisher:
    """Publishes over one connection. For one task at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox = ""
        self._session = 0
        self._subscription: Subscription | None = None
        self._id = uuid4().hex
        self._number = 0
        self._in_flight: _BatchInFlight | None = None

    async def publish(self, messages: Sequence[OutgoingMessage], after: int) -> int:
        """Publish messages as one fast batch, and return the sequence of the last one.

        Args:
            messages: at least one, all for the same stream.
            after: the expected last sequence of the stream.

        Raises:
            Fenced: the stream's last sequence was not the expected one; it may hold the first messages.
            BatchIncomplete, TimeoutError, nats.errors.Error: the stream may hold the first messages, or all.
        """
        size = len(messages)
        async with self._begin(size) as batch:
            for number, message in enumerate(messages, 1):
                operation = _COMMIT if number == size else _START if number == 1 else _APPEND
                reply = f"{batch.reply}.{FLOW}.fail.{number}.{operation}.$FI"
                await self._send(message, after + number - 1, reply)
            return await batch.wait(after + size)

    async def publish_singly(self, messages: Sequence[OutgoingMessage], after: int) -> int:
        """Publish each message after the acknowledgement of the one before; otherwise as `publish`."""
        for last, message in enumerate(messages, after + 1):
            async with self._begin(1) as batch:
                await self._send(message, last - 1, batch.reply)
                await batch.wait(last)
        return after + len(messages)

    @asynccontextmanager
    async def _begin(self, size: int) -> AsyncIterator["_BatchInFlight"]:
        if self._session != self._connection.sessions:
            await self._subscribe()
        self._number += 1
        self._in_flight = _BatchInFlight(f"{self._inbox}.{self._id}-{self._number}", size)
        try:
            yield self._in_flight
        finally:
            self._in_flight = None

    async def _subscribe(self) -> None:
        session, previous = self._connection.sessions, self._subscription
        self._session, self._subscription = 0, None
        if previous is not None:
            with suppress(nats.errors.Error):
                await self._connection.unsubscribe(previous)
        self._inbox = self._connection.client.new_inbox()
        self._subscription = await self._connection.subscribe(f"{self._inbox}.>", self._receive)
        self._session = session

    async def _send(self, message: OutgoingMessage, after: int, reply: str) -> None:
        message.headers[_FENCE] = str(after)
        await self._connection.client.publish(
            message.subject, message.data, reply=reply, headers=message.headers
        )

    def _receive(self, subject: str, _reply: str, data: bytes, headers: Mapping[str, str]) -> None:
        batch = self._in_flight
        if batch is not None and f"{subject}.".startswith(f"{batch.reply}."):
            batch.receive(data, headers)  # any other answers a publication that was given up


class _BatchInFlight:
    """Messages in flight and the server's answers."""

    def __init__(self, reply: str, size: int) -> None:
        self.reply = reply
        """The reply subject, or its first part."""
        self._size = size
        self._last: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._limit: asyncio.Timeout | None = None

    async def wait(self, last: int) -> int:
        """Wait for the acknowledgement of all messages up to the expected sequence, and return that."""
        async with asyncio.timeout(ANSWER_TIMEOUT) as self._limit:
            stored_to = await self._last
        if stored_to != last:
            raise BatchIncomplete(f"the server acknowledges sequence {stored_to} instead of {last}")
        return last

    def receive(self, data: bytes, headers: Mapping[str, str]) -> None:
        if self._last.done():
            return
        if headers.get("Status") == "503":
            self._fail(NoStreamResponseError())
            return
        with suppress(msgspec.DecodeError):  # not from JetStream
            self._receive_answer(_decode_answer(data))

    def _receive_answer(self, answer: _Answer) -> None:
        if answer.error is not None:
            self._fail(_translate(answer.error))
        elif answer.type:  # `ack` or `gap`: after a gap the acknowledgement of the messages before it follows
            if self._limit is not None:
                self._limit.reschedule(asyncio.get_running_loop().time() + ANSWER_TIMEOUT)
        elif answer.count != self._size:
            incomplete = f"the server has stored {answer.count} of {self._size} messages"
            self._fail(BatchIncomplete(incomplete))
        else:
            self._last.set_result(answer.seq)

    def _fail(self, error: Exception) -> None:
        self._last.set_exception(error)
        self._last.exception()  # retrieved: nothing waits for it if a later message cannot be sent


def _translate(error: dict[str, Any]) -> Exception:
    if error.get("err_code") == WRONG_LAST_SEQUENCE:
        return Fenced(f"the stream's last sequence is not the expected one: {error.get('description', '')}")
    return APIError(
        code=error.get("code"), description=error.get("description"), err_code=error.get("err_code")
    )
