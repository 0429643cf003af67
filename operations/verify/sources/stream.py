"""The JetStream stream, compared with the events of PostgreSQL.

The stream is read once, from its first message on. Of each message its sequence and a 64-bit digest are
kept under the position of its event: 17 bytes for every position, whatever the message weighs.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from contracts import streams
from contracts.envelope import RecordedEvent, to_headers
from operations.verify.report import Problem
from operations.verify.sources.event_store import Stream
from runtime.jetstream import Connection, Message, StreamIdentity, StreamReader, stream_identity

BATCH = 1_000
SILENCE = 5.0
"""Seconds without a message after which reading counts as failed."""
ROOM = 1_000_000
"""Positions beyond the known ones that a message may name; memory is laid out for them."""


_ONE_LINE = str.maketrans("\r\n", "  ")


class StreamChanged(Exception):
    """The stream is another one than at the beginning, so there is nothing to go on from."""


class Feed:
    """What the stream holds, by position of the event."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._identity: StreamIdentity | None = None
        self._sequences = array("Q")
        self._digests = array("q")
        self._matched = bytearray()
        self.reached = 0
        """The last sequence that was read."""

    async def identity(self) -> StreamIdentity | None:
        """Return which stream there is now; None where there is none that a relay made."""
        return await stream_identity(self._connection.js)

    @property
    def epoch(self) -> str:
        """The epoch of the stream that was read; empty where none was."""
        return self._identity.epoch if self._identity else ""

    async def read_on(self, known: int) -> Sequence[Problem]:
        """Read to the end of the stream, and return what is wrong with single messages.

        Args:
            known: the highest position of an event.

        Raises:
            StreamChanged: the stream is another one than before.
        """
        stream = await self.identity()
        if stream is None or (self._identity and stream.epoch != self._identity.epoch):
            raise StreamChanged("the stream was deleted or made anew while it was read: verify again")
        self._identity = stream
        if stream.last_sequence <= self.reached:
            return ()
        problems: list[Problem] = []
        reader = await StreamReader.open(self._connection, stream.epoch, self.reached + 1)
        try:
            while self.reached < stream.last_sequence:
                messages = await reader.batch(BATCH, SILENCE)
                if not messages:  # what lies at the end may have been deleted
                    break
                for message in messages:
                    problems += self._take(message, known + ROOM)
        finally:
            await reader.close()
        self.reached = max(self.reached, stream.last_sequence)
        return problems

    def _take(self, message: Message, highest: int) -> Iterator[Problem]:
        subject = f"message {message.sequence}"
        self.reached = message.sequence
        named = message.headers.get("diptych-position", "")
        position = int(named) if named.isdecimal() and len(named) < 19 else 0
        if not 0 < position <= highest:
            yield Problem("stream", subject, f"no relay published it: {message.subject}, position {named!r}")
            return
        if position >= len(self._sequences):
            more = position + BATCH - len(self._sequences)
            self._sequences.extend([0] * more)
            self._digests.extend([0] * more)
            self._matched.extend(bytes(more))
        if first := self._sequences[position]:
            event = message.headers.get("ce-id", "?")
            yield Problem(
                "stream", subject, f"event {event} is in the stream twice, first as message {first}"
            )
            return
        self._sequences[position] = message.sequence
        self._digests[position] = _digest(message.subject, message.headers, message.data)

    def sequence(self, position: int) -> int:
        """Return the sequence of the event at a position; 0 where it was not read yet."""
        return self._sequences[position] if position < len(self._sequences) else 0

    def compare(self, stream: Stream) -> Iterator[Problem]:
        """Yield where the stream does not hold an aggregate's events, each once, in order, as they are."""
        last = 0
        for event in stream.events if self.epoch else ():
            sequence, mark = self.sequence(event.position), stream.marks.get(event.position)
            where = f"event {event.id}"
            if mark and mark.sequence and mark.epoch != self.epoch:
                yield Problem("stream", where, f"it is marked as published in epoch {mark.epoch}")
            if not sequence:
                if mark and mark.sequence == 0:
                    yield Problem("stream", where, "it is still pending in the outbox", waits=True)
                elif mark and mark.sequence > self.reached:
                    yield Problem("stream", where, "it is not in the stream yet", waits=True)
                else:
                    said = f"marked as message {mark.sequence}" if mark else "without a row in the outbox"
                    yield Problem("stream", where, f"it is not in the stream, and {said}")
                continue
            self._matched[event.position] = 1
            subject = streams.subject(event.stream)
            if self._digests[event.position] != _digest(subject, to_headers(event), event.data):
                yield Problem("stream", where, f"message {sequence} is not what PostgreSQL has")
            if mark and mark.sequence not in (0, sequence) and mark.epoch == self.epoch:
                yield Problem("stream", where, f"it is marked as message {mark.sequence}, and is {sequence}")
            if sequence < last:
                yield Problem("stream", where, f"message {sequence} comes before that of an earlier version")
            last = sequence

    def unmatched(self) -> Iterator[tuple[int, int]]:
        """Yield position and sequence of every message whose event was not compared."""
        at = self._matched.find(0)
        while at != -1:
            if self._sequences[at]:
                yield at, self._sequences[at]
            at = self._matched.find(0, at + 1)

    def holds(self, event: RecordedEvent) -> bool:
        """Return whether the message at an event's position is that event."""
        return self._digests[event.position] == _digest(
            streams.subject(event.stream), to_headers(event), event.data
        )


def _digest(subject: str, headers: Mapping[str, Any], data: bytes) -> int:
    """Return 64 bits of a message; what NATS keeps of a relay's batches (Nats-...) does not count."""
    told = frozenset(
        [
            # NATS keeps no line breaks and no blanks round a value.
            (name, value.strip() if value.isprintable() else value.strip().translate(_ONE_LINE))
            for name, value in headers.items()
            if name[:5] != "Nats-"
        ]
    )
    return hash((subject, told, data))
