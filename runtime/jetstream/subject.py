"""Reads one subject of the event stream, which is one aggregate's, in batches from any version on.

How it works:

- A batch is one Direct Get: the server sends up to `limit` messages and a status message behind them. It
  needs no consumer, so it costs as little for an aggregate of three events as for one of a million.
- The server sends the replies without acknowledgements, so some may be lost. Each message names the one
  before it, and the status the last one; a batch with a hole fails.
- `seek` finds a version by bisection, because an aggregate's versions rise with the sequences: some 20
  requests for any length. No position has to be stored, and none is invalid after the stream was recreated.
- Any replica answers a Direct Get, also one that lags behind. `has_ended` asks the leader.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import nats.errors
from nats.js.errors import NotFoundError

from contracts import streams
from contracts.envelope import RecordedEvent
from runtime.jetstream.connection import Connection
from runtime.jetstream.stream import Message

BATCH_SIZE = 250
"""Messages in a batch, at most."""
MAX_BATCH_BYTES = 1 << 20
"""Bytes after which the server ends a batch; it has one message at least."""
TIMEOUT = 5.0
"""Seconds to wait for a complete batch."""
PROBE_SIZE = 8
"""Messages to read at each step of a bisection: the first that a relay has published decides."""


class SubjectReader:
    """Reads the messages of one subject, the oldest first.

    Args:
        connection: to NATS.
        subject: an exact subject.
        start: the first sequence to read.
    """

    def __init__(self, connection: Connection, subject: str, start: int = 1) -> None:
        self._connection = connection
        self._subject = subject
        self._next = start

    async def read_batch(self, limit: int = BATCH_SIZE) -> list[Message]:
        """Return the next messages; none at the end of the subject, as far as the answering replica knows it.

        Raises:
            nats.errors.Error, TimeoutError: JetStream cannot be reached, or messages of the batch were lost.
        """
        messages = await self._get(self._next, limit)
        if messages:
            self._next = messages[-1].sequence + 1
        return messages

    async def read_events(self, limit: int = BATCH_SIZE) -> list[RecordedEvent] | None:
        """Return the events of the next messages, in clear and without foreign ones.

        None if `read_batch` returns none.

        Raises:
            nats.errors.Error, TimeoutError: as `read_batch`, or a key is missing, or the stream was replaced.
        """
        await self._connection.feed.learn_epoch()
        messages = await self.read_batch(limit)
        if not messages:
            return None
        return list(await self._connection.subject_keys.open(await self._connection.feed.decode(messages)))

    async def seek(self, version: int) -> None:
        """Continue at a message before which no version is this or a later one.

        Raises:
            nats.errors.Error, TimeoutError: JetStream cannot be reached.
        """
        await self._connection.feed.learn_epoch()
        first = await self._get(1, 1)
        self._next = first[0].sequence if first else 1
        if version <= 1 or not first or first[0].pending < BATCH_SIZE:
            return
        low, high = self._next, await self._read_end() + 1
        while low < high:
            middle = (low + high) // 2
            sequence, found = await self._probe(middle)
            if found is None or found >= version:
                high = middle
            else:
                low = sequence + 1
        self._next = low

    async def has_ended(self) -> bool:
        """Return whether all messages that the leader stores under the subject have been read.

        Raises:
            nats.errors.Error, TimeoutError: JetStream cannot be reached.
        """
        return await self._read_end() < self._next

    async def _probe(self, start: int) -> tuple[int, int | None]:
        """Return the sequence and version of the first event from a sequence on; None if there is none."""
        messages = await self._get(start, PROBE_SIZE)
        events = await self._connection.feed.decode(messages)
        for message in messages:
            if events and message.headers.get("ce-id") == events[0].id:
                return message.sequence, events[0].version
        return start, None

    async def _read_end(self) -> int:
        """Return the sequence of the last message; 0 if there is none."""
        try:
            message = await self._connection.js.get_last_msg(streams.JETSTREAM, self._subject, direct=False)
        except NotFoundError:
            return 0
        return message.seq or 0

    async def _get(self, start: int, limit: int) -> list[Message]:
        batch = _Batch(self._subject, [], asyncio.get_running_loop().create_future())
        inbox = self._connection.client.new_inbox()
        request = {
            "seq": start,
            "next_by_subj": self._subject,
            "batch": limit,
            "max_bytes": MAX_BATCH_BYTES,
        }
        subscription = await self._connection.subscribe(inbox, batch.receive)
        try:
            await self._connection.client.publish(
                f"$JS.API.DIRECT.GET.{streams.JETSTREAM}", msgspec.json.encode(request), inbox
            )
            async with asyncio.timeout(TIMEOUT):
                await batch.ended
        finally:
            await self._connection.unsubscribe(subscription)
        return batch.messages


@dataclass
class _Batch:
    """The replies to one request."""

    subject: str
    messages: list[Message]
    ended: asyncio.Future[None]

    def receive(self, subject: str, reply: str, data: bytes, headers: Mapping[str, str]) -> None:
        if self.ended.done():
            return
        if "Status" in headers:
            self._end(headers)
        elif int(headers["Nats-Last-Sequence"]) != self._last_sequence:
            self.ended.set_exception(nats.errors.Error("messages of a batch were lost"))
        else:
            sequence, pending = int(headers["Nats-Sequence"]), int(headers["Nats-Num-Pending"])
            self.messages.append(Message(self.subject, headers, data, sequence, pending, None))

    @property
    def _last_sequence(self) -> int:
        return self.messages[-1].sequence if self.messages else 0

    def _end(self, headers: Mapping[str, str]) -> None:
        match headers["Status"]:
            case "204" if int(headers["Nats-Last-Sequence"]) == self._last_sequence:
                self.ended.set_result(None)
            case "404" if not self.messages:
                self.ended.set_result(None)
            case "503":
                self.ended.set_exception(nats.errors.NoRespondersError())
            case status:
                self.ended.set_exception(nats.errors.Error(f"{status} {headers.get('Description', '')}"))
