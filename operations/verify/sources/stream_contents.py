"""Reads the JetStream stream once, from its first message.

Of each message it keeps the sequence and a 64-bit digest, indexed by the position of the event in PostgreSQL:
17 bytes for every position, independent of the size of the message.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from contracts import streams
from contracts.envelope import RecordedEvent, to_headers
from contracts.feed_signatures import SIGNATURE
from runtime.jetstream import (
    Connection,
    Message,
    StreamIdentity,
    StreamReader,
    is_signed,
    read_stream_identity,
)

BATCH_SIZE = 1_000
READ_TIMEOUT = 5.0
"""Seconds without a message after which the read fails."""
MAX_POSITIONS_AHEAD = 1_000_000
"""Positions above PostgreSQL's last one that a message may name: bounds the memory for a forged header."""

POSITION_HEADER = "diptych-position"
"""The header of an event's position in PostgreSQL."""

_LINE_BREAKS = str.maketrans("\r\n", "  ")


class StreamChanged(Exception):
    """The stream was replaced during verification, so the messages read so far cannot be compared."""


@dataclass(frozen=True, slots=True)
class StrayMessage:
    """A message without a valid position, or the second one at a position."""

    sequence: int
    subject: str
    event_id: str
    position: str
    """The header, as it was sent."""
    first_sequence: int
    """The sequence of the first message at the position; 0: the position is not valid."""


class StreamContents:
    """The messages of the stream, by position of the event."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._identity: StreamIdentity | None = None
        self._sequences = array("Q")
        self._digests = array("q")
        self._compared = bytearray()
        self._first_time: datetime | None = None
        self.last_sequence = 0
        """The sequence of the last message that was read."""
        self.foreign = 0
        """The number of messages that the relay has not published; readers skip them."""

    @property
    def epoch(self) -> str:
        """The epoch of the stream that was read; empty before the first read."""
        return self._identity.epoch if self._identity else ""

    async def read_identity(self) -> StreamIdentity | None:
        """Return the current stream; None if no stream created by a relay exists."""
        return await read_stream_identity(self._connection.js)

    async def read_new_messages(self, last_position: int) -> Sequence[StrayMessage]:
        """Read to the current end of the stream; return the messages that fit no event.

        Args:
            last_position: the highest position of an event in PostgreSQL.

        Raises:
            StreamChanged: the stream is not the one of the earlier reads.
            KeysMissing: its messages are not signed, or with keys that are not in the key ring.
        """
        stream = await self.read_identity()
        if stream is None or (self._identity and stream.epoch != self._identity.epoch):
            raise StreamChanged("the stream was deleted or recreated during verification: verify again")
        self._connection.feed.check(stream)
        self._identity = stream
        if stream.last_sequence <= self.last_sequence:
            return ()
        strays: list[StrayMessage] = []
        reader = await StreamReader.open(self._connection, stream.epoch, self.last_sequence + 1)
        try:
            while self.last_sequence < stream.last_sequence:
                messages = await reader.read_batch(BATCH_SIZE, READ_TIMEOUT)
                if not messages:  # the last messages may have been deleted
                    break
                max_position = last_position + MAX_POSITIONS_AHEAD
                keys = await self._connection.feed.find_keys(messages, stream.epoch)
                for message, key in zip(messages, keys, strict=True):
                    self.last_sequence = message.sequence
                    if not is_signed(message, key, stream.epoch):
                        self.foreign += 1
                    elif stray := self._store(message, max_position):
                        strays.append(stray)
        finally:
            await reader.close()
        self.last_sequence = max(self.last_sequence, stream.last_sequence)
        return strays

    def _store(self, message: Message, max_position: int) -> StrayMessage | None:
        self._first_time = self._first_time or message.published_at
        header = message.headers.get(POSITION_HEADER, "")
        position = int(header) if header.isdecimal() and len(header) < 19 else 0
        if not 0 < position <= max_position:
            return _to_stray(message, first_sequence=0)
        if position >= len(self._sequences):
            size = position + BATCH_SIZE - len(self._sequences)
            self._sequences.extend([0] * size)
            self._digests.extend([0] * size)
            self._compared.extend(bytes(size))
        if first := self._sequences[position]:
            return _to_stray(message, first_sequence=first)
        self._sequences[position] = message.sequence
        self._digests[position] = digest(message.subject, message.headers, message.data)
        return None

    def sequence_at(self, position: int) -> int:
        """Return the sequence of the message at a position; 0: not read yet."""
        return self._sequences[position] if position < len(self._sequences) else 0

    def is_archived(self, event: RecordedEvent, sequence: int) -> bool:
        """Return whether housekeeping has removed the message of an event.

        Args:
            event: has no message in the stream.
            sequence: of its message, from the outbox; 0 if the outbox has no row any more.
        """
        removed_to = self._identity.removed_to if self._identity else 0
        is_older = self._first_time is None or event.recorded_at <= self._first_time
        return sequence <= removed_to if sequence else removed_to > 0 and is_older

    def matches(self, event: RecordedEvent) -> bool:
        """Return whether the message at the event's position is that event, byte for byte."""
        subject = streams.subject(event.stream)
        return self._digests[event.position] == digest(subject, to_headers(event), event.data)

    def mark_compared(self, position: int) -> None:
        self._compared[position] = 1

    def list_not_compared(self) -> Iterator[tuple[int, int]]:
        """Yield position and sequence of every message that was not marked as compared."""
        position = self._compared.find(0)
        while position != -1:
            if self._sequences[position]:
                yield position, self._sequences[position]
            position = self._compared.find(0, position + 1)


def _to_stray(message: Message, first_sequence: int) -> StrayMessage:
    event_id, position = message.headers.get("ce-id", "?"), message.headers.get(POSITION_HEADER, "")
    return StrayMessage(message.sequence, message.subject, event_id, position, first_sequence)


def digest(subject: str, headers: Mapping[str, Any], data: bytes) -> int:
    """Return 64 bits of a message, without its signature and the headers that NATS adds for batches."""
    fields = frozenset(
        [
            # NATS replaces line breaks in header values and strips blanks around them.
            (name, value.strip() if value.isprintable() else value.strip().translate(_LINE_BREAKS))
            for name, value in headers.items()
            if name[:5] != "Nats-" and name != SIGNATURE
        ]
    )
    return hash((subject, fields, data))
