"""One reading of the stream for all consumers of a process, each with a cursor of its own.

How it works:

1. `open` returns a cursor, which begins at its owner's checkpoints. `run` has to run beside it. To leave is
   to `close` the cursor. The owner stores its checkpoints with its data; after `ReaderLost` it opens another
   cursor from them.
2. Cursors that are near the end of the stream share the *main* reading, which has all stream types and the
   partitions of the process. Its log also holds the latest messages, so a cursor that comes close finds its
   next message there: it continues in that log behind the last message that it returned.
3. A cursor that is far behind (a rebuild, a slow consumer) reads by itself, or with others that are as far,
   and only its own stream types. Each time it has returned everything that its reading has, it looks whether
   the main reading covers its positions, and then changes to it. One that falls behind the limits of the main
   reading's log leaves it in the same way: it opens a reading at its own positions.
4. `run` checks the stream for all: its identity after each reply of the relay, and then up to where each
   reading has all of its messages. So a cursor knows its positions also where no message has arrived.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from runtime.jetstream.connection import UNREACHABLE, Connection
from runtime.jetstream.cursor import Cursor
from runtime.jetstream.event_log import Limits
from runtime.jetstream.log_reader import LogReader
from runtime.jetstream.publication import Publication, PublicationClock
from runtime.jetstream.reader import ReaderLost
from runtime.jetstream.stream import StreamIdentity, read_stream_identity
from runtime.process import logs

CHECK_INTERVAL = 1.0
"""Seconds between checks of the stream, at most: each reply of the relay begins one at once."""

log = logs.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StreamCheck:
    """The result of a check of the stream, which has what the relay's reply confirms."""

    publication: Publication | None
    identity: StreamIdentity | None


class SharedReader:
    """Reads the stream for the cursors of one process.

    Args:
        connection: to NATS.
        get_partitions: returns the partitions that the process works on.
        publications: the relay's replies; None if nobody needs them.
        limits: of the messages that are kept.
    """

    def __init__(
        self,
        connection: Connection,
        get_partitions: Callable[[], Collection[int]],
        publications: PublicationClock | None = None,
        limits: Limits = Limits(),  # noqa: B008 - it is frozen
    ) -> None:
        self._connection = connection
        self._get_partitions = get_partitions
        self._publications = publications
        self._limits = limits
        self._readers: list[LogReader] = []
        self._main: LogReader | None = None
        self._entering = asyncio.Lock()
        self.latest_check: StreamCheck | None = None
        self.on_check: Callable[[], None] = lambda: None
        """Called after each check."""
        self._check_due = asyncio.Event()
        self._failures = logs.RepeatedErrors(log, "Check of the stream failed")
        if publications is not None:
            publications.observe = self._check_due.set

    async def run(self) -> NoReturn:
        """Check the stream until cancelled."""
        while True:
            try:
                await self._check()
            except UNREACHABLE:
                pass  # the readers notice a lost connection, too
            except Exception as error:  # for instance, malformed metadata of the stream
                self._failures.report(error)
            else:
                self._failures.reset()
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_INTERVAL):
                    await self._check_due.wait()
            self._check_due.clear()

    async def _check(self) -> None:
        if not self._readers and self._publications is None:
            return
        publication = self._publications.latest if self._publications else None
        identity = await read_stream_identity(self._connection.js)
        if identity is not None:
            readers = [reader for reader in self._readers if reader.epoch == identity.epoch]
            confirming = (reader.confirm_ends(identity.last_sequence) for reader in readers)
            await asyncio.gather(*confirming, return_exceptions=True)  # a reading may be lost, or close now
        self.latest_check = StreamCheck(publication, identity)
        for reader in self._readers:
            reader.wake_all()
        self.on_check()

    async def open(self, epoch: str, starts: Mapping[int, int], stream_types: Collection[str]) -> Cursor:
        """Return a cursor.

        Args:
            epoch: of the stream that `starts` belongs to.
            starts: partition to the first sequence to read, 1 or higher.
            stream_types: the stream types to read, `<context>.<aggregate>`.

        Raises:
            ReaderLost: there is no stream, or it has another epoch.
            nats.errors.Error: JetStream cannot be reached, or keys of the stream are missing here.
        """
        cursor = Cursor(self, epoch, starts, stream_types)
        await self.enter(cursor)
        self._check_due.set()
        return cursor

    async def enter(self, cursor: Cursor) -> None:
        """Give a cursor the reading that has its next messages, a new one if need be."""
        async with self._entering:  # the first cursor opens the reading that the others share
            self._readers = [reader for reader in self._readers if not reader.loss]
            main = self.find_main()
            if main is None or not cursor.is_covered_by(main):
                main = await self._find_or_open(cursor)
            cursor.begin(main)

    def find_main(self) -> LogReader | None:
        """Return the main reading; None if there is none of the partitions that the process works on now."""
        partitions = frozenset(self._get_partitions())
        if self._main is None or not self._main.serves_all(partitions):
            candidates = [reader for reader in self._readers if reader.serves_all(partitions)]
            self._main = max(candidates, key=lambda reader: max(reader.log.ends), default=None)
        return self._main

    def is_near_end(self, position: int) -> bool:
        """Return whether a position is as near to the stream's end as the main reading's log reaches back."""
        check = self.latest_check
        if check is None or check.identity is None:
            return False
        return position >= check.identity.last_sequence - self._limits.retained_messages

    async def _find_or_open(self, cursor: Cursor) -> LogReader:
        identity = await read_stream_identity(self._connection.js)
        if identity is None or identity.epoch != cursor.epoch:
            raise ReaderLost("there is no stream of this epoch")
        self._connection.feed.check(identity)
        position, end = min(cursor.positions.values()), identity.last_sequence
        is_far = end - position > self._limits.retained_messages
        near = frozenset(self._get_partitions()) | frozenset(cursor.positions)
        for reader in self._readers:
            # A cursor near the end would keep one of other partitions from giving way to a new main reading.
            if not reader.loss and cursor.is_covered_by(reader) and (is_far or reader.serves_all(near)):
                return reader
        partitions, types, start = frozenset(cursor.positions), frozenset(cursor.stream_types), position + 1
        if not is_far:
            partitions = near
            start = max(1, end + 1 - self._limits.retained_messages)  # early enough for all that are near
        reader = await LogReader.open(
            self._connection, cursor.epoch, partitions, types if is_far else None, start, self._limits
        )
        self._readers.append(reader)
        main = self.find_main()
        if main is not None and not is_far and start > max(main.log.ends):
            self._main = reader
        return reader
