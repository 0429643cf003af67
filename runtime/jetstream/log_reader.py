"""Reads a part of the stream into a log, in which cursors find their messages.

How it works. A reader of all partitions has one consumer. One of some partitions has a consumer for each: a
consumer with one subject filter delivers 30,000 messages a second here, one with several filters 90 to 280,
because NATS 2.15 then searches all subjects for each message. A task moves the messages into the log and
wakes the cursors for which some have arrived. It pauses while even the foremost cursor has many messages to
return, so a slow cursor does not stop it while another one is fast. It ends with the last cursor. After an
error of a consumer all cursors raise `ReaderLost` once they have returned what is in the log.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Protocol

from contracts import streams
from runtime.jetstream.connection import Connection
from runtime.jetstream.end_checks import EndChecks
from runtime.jetstream.event_decoder import KeysMissing
from runtime.jetstream.event_log import EventLog, LateMessage, Limits
from runtime.jetstream.reader import ReaderLost, StreamReader
from runtime.jetstream.relayed_keys import EventData
from runtime.process import logs
from runtime.process.lifecycle import cancel_and_wait

BUSY_TIME = 1.0
"""Seconds after the last message for its cursors in which a reader is busy."""
SILENCE_INTERVAL = 0.25
"""Seconds without a message after which the consumers are checked for errors."""

log = logs.get_logger(__name__)


class Member(Protocol):
    """A cursor, as its reader sees it."""

    next: int
    """The number of the message that it examines next."""
    keys: frozenset[tuple[str, int]]
    """The stream types and partitions whose messages it returns."""
    arrived: asyncio.Event

    def skip(self) -> None:
        """Pass over messages that it need not return."""


class LogReader:
    """Consumers and their log; created by `open`, and closed by itself when its last cursor leaves.

    Args:
        connection: to NATS.
        epoch: of the stream.
        partitions: the partitions that it reads.
        stream_types: the stream types that it reads; None for all.
        start: the first sequence.
        limits: of its log.
    """

    def __init__(
        self,
        connection: Connection,
        epoch: str,
        partitions: frozenset[int],
        stream_types: frozenset[str] | None,
        start: int,
        limits: Limits,
    ) -> None:
        self._connection = connection
        self.epoch = epoch
        self.partitions = partitions
        self.stream_types = stream_types
        self.loss = ""
        """Why it has ended; empty before."""
        self.had_late_message = False
        """Whether it has ended because an end, and so a cursor's position, was wrong."""
        self.members: set[Member] = set()
        is_whole = len(partitions) == streams.PARTITIONS
        self.lanes = {partition: 0 if is_whole else lane for lane, partition in enumerate(sorted(partitions))}
        """The lane of each partition."""
        self.log = EventLog(epoch, [start] * (1 if is_whole else len(partitions)), limits)
        self._is_whole = is_whole
        self._subjects = self._list_subjects()
        """The subject filter of each lane."""
        self._readers: list[StreamReader] = []
        self._arrived = asyncio.Event()
        self._pauses = False
        self._last_arrival = -inf
        self._end_checks = EndChecks(connection.js, epoch, self._subjects, self.log)
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        connection: Connection,
        epoch: str,
        partitions: frozenset[int],
        stream_types: frozenset[str] | None,
        start: int,
        limits: Limits,
    ) -> "LogReader":
        """Return a reader of the stream with this epoch.

        Raises:
            ReaderLost: there is no stream, or it has another epoch.
            nats.errors.Error: JetStream cannot be reached, or a key is missing.
        """
        reader = cls(connection, epoch, partitions, stream_types, start, limits)
        opening = [
            asyncio.create_task(StreamReader.open(connection, epoch, start, [subject], reader._arrived))
            for subject in reader._subjects
        ]
        try:
            reader._readers = await asyncio.gather(*opening)
        except BaseException:
            results = await asyncio.gather(*opening, return_exceptions=True)
            reader._readers = [result for result in results if isinstance(result, StreamReader)]
            await reader._close_readers()
            raise
        reader._task = asyncio.create_task(reader._run())
        return reader

    def _list_subjects(self) -> Sequence[str]:
        types = self.stream_types
        stream_type = next(iter(types)) if types is not None and len(types) == 1 else "*.*"
        if not self._is_whole:
            return [streams.partition_subject(partition, stream_type) for partition in self.lanes]
        # Without a type every message of the stream, since each shows up to where it was read.
        return [streams.SUBJECTS if stream_type == "*.*" else streams.partition_subject("*", stream_type)]

    def serves_all(self, partitions: frozenset[int]) -> bool:
        """Return whether it has not ended, and has all stream types and exactly these partitions."""
        return not self.loss and self.stream_types is None and self.partitions == partitions

    def add(self, member: Member) -> None:
        self.members.add(member)

    async def remove(self, member: Member) -> None:
        """Remove a cursor; after the last one, close."""
        self.members.discard(member)
        if not self.members:
            await self.close("no cursor is left")

    async def close(self, reason: str) -> None:
        self._lose(reason)
        if self._task is not None and self._task is not asyncio.current_task():
            await cancel_and_wait(self._task)
            await self._close_readers()  # a task that is cancelled before its first step has not

    def note_progress(self) -> None:
        """Continue after a pause in which the cursors were behind."""
        if self._pauses:
            self._arrived.set()

    async def confirm_ends(self, last_sequence: int) -> None:
        """Find out which lanes have all messages up to the end that the stream had before this call.

        Raises:
            nats.errors.Error: JetStream cannot be reached.
        """
        await self._end_checks.run(last_sequence)

    async def _run(self) -> None:
        try:
            while True:
                self._arrived.clear()
                self._pauses = self._must_pause()
                if self._pauses or not await self._take():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(SILENCE_INTERVAL):
                            await self._arrived.wait()
        except LateMessage as error:
            log.error("Late message in the stream; reading again from the last messages", error=str(error))
            self.had_late_message = True
            self._lose(str(error))
        except Exception as error:  # also a bug in this code: the cursors must not wait without end
            self._lose(str(error) if isinstance(error, ReaderLost | KeysMissing) else repr(error))
        finally:
            self._lose("it was closed")
            await self._close_readers()

    async def _take(self) -> int:
        """Move messages from the consumers into the log; return their number."""
        total = 0
        # Together not more than the reader may be ahead, or the foremost cursor would lose its place.
        limit = max(1, self.log.limits.messages_ahead // len(self._readers))
        for lane, reader in enumerate(self._readers):
            messages = await reader.take(limit)
            total += len(messages)
            keys = await self._connection.feed.find_keys(messages, self.epoch)
            subject_keys = await self._connection.subject_keys.find([EventData.of(each) for each in messages])
            self._wake(self.log.append(lane, messages, keys, subject_keys))
        if total:
            self._trim()
        return total

    def _trim(self) -> None:
        for member in self.members:
            if not self.log.is_retained(member.next):
                member.skip()
        self.log.trim(min((member.next for member in self.members), default=self.log.next))

    def _wake(self, arrived: set[tuple[str, int]]) -> None:
        for member in self.members:
            if not member.keys.isdisjoint(arrived):
                self._last_arrival = monotonic()
                member.arrived.set()

    @property
    def is_busy(self) -> bool:
        """Whether messages have arrived for its cursors within the last BUSY_TIME."""
        return monotonic() - self._last_arrival < BUSY_TIME

    def wake_all(self) -> None:
        for member in self.members:
            member.arrived.set()

    def _must_pause(self) -> bool:
        """Return whether the foremost cursor is behind. Cursors pass over what they need not return first."""
        if not self._is_ahead():
            return False
        for member in self.members:
            member.skip()
        return self._is_ahead()

    def _is_ahead(self) -> bool:
        foremost = max((member.next for member in self.members), default=self.log.next)
        return self.log.exceeds(foremost, self.log.limits.messages_ahead, self.log.limits.size_ahead)

    def _lose(self, reason: str) -> None:
        self.loss = self.loss or reason
        self.wake_all()

    async def _close_readers(self) -> None:
        readers, self._readers = self._readers, []
        await asyncio.gather(*(reader.close() for reader in readers))
