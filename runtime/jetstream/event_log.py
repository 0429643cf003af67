"""The messages of one reading of the stream, kept for several cursors. Pure.

How it works. A log has lanes: each is one consumer's messages, in the order of their sequences. For each
lane it knows two sequences. All messages above the `base` and up to the `end` are in the log; the end
advances also where the stream is known to have no further message of the lane. A cursor is a number in the
log, so a message is stored and decoded once, however many cursors return it. The log keeps the latest
messages, where cursors that read elsewhere can join, and older ones that some cursor has not returned, within
`Limits`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from contracts import streams
from contracts.envelope import RecordedEvent
from contracts.key_ring import Key
from contracts.personal_data import Keys
from runtime.jetstream.event_decoder import decode_event, report_foreign
from runtime.jetstream.reader import ReaderLost
from runtime.jetstream.stream import Message
from runtime.subject_keys import open_event


@dataclass(frozen=True, slots=True)
class Limits:
    """How many messages a log keeps, and how many bytes of their data."""

    messages: int = 20_000
    size: int = 64 * 1024 * 1024
    """A cursor that is farther behind the newest message has to read elsewhere."""
    retained_messages: int = 2_000
    retained_size: int = 4 * 1024 * 1024
    """Kept although all cursors have returned them."""
    messages_ahead: int = 2_000
    size_ahead: int = 8 * 1024 * 1024
    """Read ahead of the foremost cursor."""


PARTITIONS = {str(partition): partition for partition in range(streams.PARTITIONS)}


class LateMessage(ReaderLost):
    """A message has arrived at or below the end of its lane: the end was wrong, or messages are repeated."""


class EventMessage(msgspec.Struct):
    """A message of the stream, whose event is decoded when it is first needed."""

    sequence: int
    partition: int
    """-1 if the subject is not one of an event."""
    stream_type: str
    published_at: datetime | None
    lane: int
    offset: int
    """Bytes of data in the log up to the end of this message, including those that were removed."""
    _message: Message | None
    _key: Key | None
    _epoch: str
    _subject_keys: Keys
    _event: RecordedEvent | None = None

    @property
    def event(self) -> RecordedEvent | None:
        """The event in clear; None if the relay has not published the message, which is reported once."""
        if self._message is not None:
            event = decode_event(self._message, self._key, self._epoch)
            if event is None:
                report_foreign(self._message)
            else:
                self._event = open_event(event, event.stream, self._subject_keys)
            self._message = self._key = None
            self._subject_keys = {}
        return self._event


class EventLog:
    """The messages of a reading.

    Args:
        epoch: of the stream.
        starts: the first sequence of each lane.
        limits: of the messages that it keeps.
    """

    def __init__(self, epoch: str, starts: Sequence[int], limits: Limits) -> None:
        self._epoch = epoch
        self.limits = limits
        self.messages: list[EventMessage] = []
        self.first = 0
        """The number of the first message in the log; messages are numbered in the order of their arrival."""
        self.bases = [start - 1 for start in starts]
        self.ends = list(self.bases)
        self._offset = 0
        """Bytes of data that have arrived."""
        self._removed = 0
        """Bytes of data that were removed."""

    @property
    def next(self) -> int:
        """The number of the next message that arrives."""
        return self.first + len(self.messages)

    def append(
        self, lane: int, messages: Sequence[Message], keys: Sequence[Key | None], subject_keys: Keys
    ) -> set[tuple[str, int]]:
        """Append messages of a lane; return their stream types and partitions.

        Args:
            lane: its number.
            messages: in the order of their sequences.
            keys: those that the messages name (`FeedVerifier.find_keys`).
            subject_keys: open the events (`RelayedKeys.find`).

        Raises:
            LateMessage: the first one is not behind the lane's end; none was appended.
        """
        if messages and messages[0].sequence <= self.ends[lane]:
            raise LateMessage(
                f"message {messages[0].sequence} of lane {lane} is at or below {self.ends[lane]}"
            )
        arrived = set()
        for message, key in zip(messages, keys, strict=True):
            self._offset += len(message.data)
            parts = message.subject.split(".")
            is_event = len(parts) == 6
            partition = PARTITIONS.get(parts[2], -1) if is_event else -1
            stream_type = f"{parts[3]}.{parts[4]}" if is_event else ""
            arrived.add((stream_type, partition))
            self.messages.append(
                EventMessage(
                    sequence=message.sequence,
                    partition=partition,
                    stream_type=stream_type,
                    published_at=message.published_at,
                    lane=lane,
                    offset=self._offset,
                    _message=message,
                    _key=key,
                    _epoch=self._epoch,
                    _subject_keys=subject_keys,
                )
            )
        if messages:
            self.ends[lane] = messages[-1].sequence
        return arrived

    def confirm_end(self, lane: int, sequence: int) -> None:
        """Record that the stream has no message of the lane between its last one and this sequence."""
        self.ends[lane] = max(self.ends[lane], sequence)

    def covers(self, lane: int, position: int) -> bool:
        """Return whether it has, or will soon have, all messages of a lane behind a position."""
        return self.bases[lane] <= position <= self.ends[lane] + self.limits.messages

    def exceeds(self, number: int, messages: int, size: int) -> bool:
        """Return whether there are more messages, or more bytes of their data, from a number on."""
        at = number - self.first
        before = self.messages[at - 1].offset if at > 0 else self._removed
        return len(self.messages) - at > messages or self._offset - before > size

    def is_retained(self, number: int) -> bool:
        """Return whether the message of a number is one of the latest, which stay in the log."""
        return not self.exceeds(number, self.limits.retained_messages, self.limits.retained_size)

    def trim(self, returned: int) -> None:
        """Remove the oldest messages: returned ones that are not retained, and all beyond the limits.

        Args:
            returned: the number of the first message that some cursor has not returned.
        """
        while self.messages:
            # Several at once, since to remove the first of a list moves all others.
            last = len(self.messages) // 20
            number = self.first + last
            may_go = number < returned and not self.is_retained(number)
            if not may_go and not self.exceeds(number, self.limits.messages, self.limits.size):
                return
            for message in self.messages[: last + 1]:
                self.bases[message.lane] = message.sequence
            self._removed = self.messages[last].offset
            del self.messages[: last + 1]
            self.first = number + 1
