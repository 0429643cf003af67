"""A consumer's place in a stream that is read once for several consumers.

How it works. A cursor returns messages from the log of a reader. Its positions name, for each partition, the
sequence up to which the stream has no message for the cursor that was not returned. They hold in every
log, so a cursor changes to another one without losing or repeating a message: it may change only to a log
that has all messages behind them, begins with its first message and skips those up to the last one that was
returned. A position can exceed that one; should a message arrive between the two, the cursor reads again
from the last returned ones.
"""

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Protocol

from runtime.jetstream.event_log import EventMessage
from runtime.jetstream.log_reader import LogReader
from runtime.jetstream.reader import ReaderLost


class LogReaders(Protocol):
    """The log readers of a process."""

    async def enter(self, cursor: "Cursor") -> None:
        """Let a cursor begin in the reader that has its next messages; open one if there is none."""

    def find_main(self) -> LogReader | None:
        """Return the reader that the cursors near the end of the stream share."""

    def is_near_end(self, position: int) -> bool:
        """Return whether a position is near the end of the stream, as far as that is known."""


class Cursor:
    """Returns the messages of some stream types and partitions, each partition's in order.

    Args:
        readers: of the process.
        epoch: of the stream.
        starts: partition to the first sequence.
        stream_types: the stream types.
    """

    def __init__(
        self, readers: LogReaders, epoch: str, starts: Mapping[int, int], stream_types: Collection[str]
    ) -> None:
        self._readers = readers
        self.epoch = epoch
        self.stream_types = stream_types
        self.keys = frozenset((each, partition) for each in stream_types for partition in starts)
        self.positions = {partition: start - 1 for partition, start in starts.items()}
        """Partition to a sequence up to which the stream has no message that was not returned."""
        self._returned = dict(self.positions)
        """Partition to the last sequence that was returned, or the one before the start."""
        self.arrived = asyncio.Event()
        self.next = 0
        self._reader: LogReader | None = None

    def is_covered_by(self, reader: LogReader) -> bool:
        """Return whether a reader has, or will soon have, all messages behind the cursor's positions."""
        return (
            reader.epoch == self.epoch
            and reader.partitions.issuperset(self.positions)
            and (reader.stream_types is None or reader.stream_types.issuperset(self.stream_types))
            and all(
                reader.log.covers(reader.lanes[partition], position)
                for partition, position in self.positions.items()
            )
        )

    def begin(self, reader: LogReader) -> None:
        """Continue in a reader's log; messages up to the last returned ones are passed over."""
        self._reader, self.next = reader, reader.log.first
        reader.add(self)

    async def read_batch(self, limit: int, max_wait: float) -> list[EventMessage]:
        """Return the next messages.

        Args:
            limit: maximum number of messages.
            max_wait: seconds after which the list is returned empty; a check of the stream ends the wait.

        Raises:
            ReaderLost: messages may be missing from here on.
            nats.errors.Error: JetStream cannot be reached.
        """
        self.arrived.clear()
        await self._change_reader()
        if messages := self._take(limit):
            return messages
        with suppress(TimeoutError):
            async with asyncio.timeout(max_wait):
                await self.arrived.wait()
        return self._take(limit)

    def read_positions(self) -> Mapping[int, int]:
        """Return the positions after the messages that were returned.

        They may exceed the last one, where the stream is known to have no further message to return.
        """
        self.skip()
        reader = self._get_reader()
        log, lanes = reader.log, reader.lanes
        if self.next >= log.first:
            ends = list(log.ends)
            for message in reversed(log.messages[self.next - log.first :]):
                ends[message.lane] = message.sequence - 1
            for partition, position in self.positions.items():
                self.positions[partition] = max(position, ends[lanes[partition]])
        return dict(self.positions)

    def reads_apart(self) -> bool:
        """Return whether the cursor is behind, while messages arrive for others in the main reader."""
        main = self._readers.find_main()
        return main is not None and main is not self._reader and main.is_busy

    def skip(self) -> None:
        """Pass over messages that the cursor does not return."""
        log = self._get_reader().log
        while log.first <= self.next < log.next:
            if self._must_return(log.messages[self.next - log.first]):
                return
            self.next += 1

    async def close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.remove(self)

    def _take(self, limit: int) -> list[EventMessage]:
        reader = self._get_reader()
        at = self.next - reader.log.first
        if at < 0:  # the next call finds another reading
            return []
        messages, taken = reader.log.messages, list[EventMessage]()
        while at < len(messages) and len(taken) < limit:
            message = messages[at]
            at += 1
            if self._must_return(message):
                taken.append(message)
        self.next = reader.log.first + at
        for message in taken:
            self._returned[message.partition] = self.positions[message.partition] = message.sequence
        reader.note_progress()
        if reader.loss and not taken and not reader.had_late_message:
            raise ReaderLost(reader.loss)
        return taken

    def _must_return(self, message: EventMessage) -> bool:
        return (message.stream_type, message.partition) in self.keys and (
            message.sequence > self._returned[message.partition]
        )

    async def _change_reader(self) -> None:
        """Leave a log whose limits the cursor has exceeded; join the main reader once that is near."""
        reader, main = self._get_reader(), self._readers.find_main()
        if reader.had_late_message and not reader.log.first <= self.next < reader.log.next:
            self.positions = dict(self._returned)
        elif self.next >= reader.log.first:
            if reader is main or reader.loss:
                return
            self.read_positions()
            if main is None:
                # One of all stream types is as good until there is a main one of the process's partitions.
                is_near = self._readers.is_near_end(min(self.positions.values()))
                if reader.stream_types is None or not is_near:
                    return
            elif not self.is_covered_by(main):
                return
        await self.close()
        await self._readers.enter(self)

    def _get_reader(self) -> LogReader:
        if self._reader is None:
            raise ReaderLost("the cursor is closed")
        return self._reader
