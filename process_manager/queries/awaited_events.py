"""Finds out, for all waiting queries together, which events the sagas have processed.

How it works:

- An instance keeps the version of its own stream, which is compared with the token's.
- Events of another stream may belong to any instance or to none, and so may events from before a saga's
  beginning. There the feed's checkpoint is compared with a message of the stream that is at least of the
  token's version: behind it, each instance has received the stream's events that belong to it, unless the
  stream is parked or an instance has failed on one of them.
- One check at a time reads PostgreSQL for all that queries wait for: after deliveries of this process, and
  every POLL_INTERVAL, because other processes deliver too. Ends of streams are read from JetStream a few at a
  time, so that many waits for events that nobody has published delay the other waits little.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

from contracts import streams
from process_manager.queries.feed_reader import FeedReader
from process_manager.saga import Saga
from runtime.grpc.waits import Wait, Woken

POLL_INTERVAL = 0.1
"""Seconds between two checks without a delivery."""
MIN_INTERVAL = 0.02
"""Seconds between two checks while there are deliveries."""
MAX_END_READS = 20
"""Ends of streams that one check reads."""
MAX_END_AGE = 1.0
"""Seconds after which the end of a stream is read again: it may be of an epoch that has ended."""


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The last message of a stream in JetStream."""

    epoch: str
    sequence: int
    version: int
    """The version of the stream's last event; 0 for several streams whose last message is foreign."""


ReadStreamEnd = Callable[[str], Awaitable[StreamEnd | None]]
"""Returns the end of an aggregate's stream; None if JetStream has no message of it."""


@dataclass(frozen=True, slots=True)
class RequiredEvents:
    """The events of a stream up to a version, which a saga has to process."""

    saga: str
    stream: str
    version: int
    is_own: bool
    """Whether the stream is an instance's own."""
    can_be_passed_over: bool
    """Whether the events may belong to no instance."""

    @classmethod
    def of(cls, saga: Saga[Any], stream: str, version: int) -> "RequiredEvents":
        is_own = streams.stream_type(stream) == saga.own_type
        can_be_passed_over = not is_own or saga.begins != "first_event" or saga.deadline is not None
        return cls(saga.name, stream, version, is_own, can_be_passed_over)


class AwaitedEvents:
    """The events that queries wait for.

    Args:
        feeds: reads how far the sagas are.
        read_stream_end: reads the end of one aggregate's stream.
    """

    def __init__(self, feeds: FeedReader, read_stream_end: ReadStreamEnd) -> None:
        self._feeds = feeds
        self._read_stream_end = read_stream_end
        self._waits: dict[RequiredEvents, set[Wait]] = {}
        self._ends = _StreamEnds(read_stream_end)
        self._delivered = asyncio.Event()
        self._checking: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Check soon; called after each delivery of events."""
        self._delivered.set()

    async def find_missing(self, required: Collection[RequiredEvents]) -> list[RequiredEvents]:
        """Return those of the events that are not processed yet."""
        processed = await self._find_processed(required, _StreamEnds(self._read_stream_end))
        return [each for each in required if each not in processed]

    def is_awaited(self, required: RequiredEvents) -> bool:
        return required in self._waits

    async def wait_for(self, required: RequiredEvents, wait: Wait) -> Woken:
        """Wait until a saga has processed events.

        Returns:
            REACHED; TIME_UP; DISTURBED, `find_missing` tells why it cannot be found out.
        """
        waits = self._waits.setdefault(required, set())
        waits.add(wait)
        if self._checking is None:
            self._checking = asyncio.create_task(self._check_while_awaited())
        try:
            return await wait.sleep()
        finally:
            waits.discard(wait)
            if not waits and self._waits.get(required) is waits:
                del self._waits[required]

    async def _check_while_awaited(self) -> None:
        try:
            while self._waits:
                self._delivered.clear()
                await self._check(list(self._waits))
                await asyncio.sleep(MIN_INTERVAL)
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_INTERVAL - MIN_INTERVAL):
                        await self._delivered.wait()
        finally:
            self._checking = None
            self._ends.forget_all_but(set())

    async def _check(self, required: Collection[RequiredEvents]) -> None:
        self._ends.forget_all_but(set(required))
        own = [each for each in required if not each.can_be_passed_over]
        others = [each for each in required if each.can_be_passed_over]
        for events in (own, others):  # apart, since the former need no JetStream
            try:
                processed, woken = await self._find_processed(events, self._ends), Woken.REACHED
            except Exception:  # every waiting query reads by itself, and ends with this error
                processed, woken = set(events), Woken.DISTURBED
            for each in processed:
                for wait in self._waits.get(each, ()):
                    wait.wake(woken)

    async def _find_processed(
        self, required: Collection[RequiredEvents], ends: "_StreamEnds"
    ) -> set[RequiredEvents]:
        ids = {each: (each.saga, streams.aggregate_id(each.stream)) for each in required if each.is_own}
        versions = await self._feeds.read_versions(set(ids.values())) if ids else {}
        processed = {each for each, id_ in ids.items() if versions.get(id_, 0) >= each.version}
        others = [each for each in required if each.can_be_passed_over and each not in processed]
        return processed | await self._find_passed(others, ends)

    async def _find_passed(
        self, required: Collection[RequiredEvents], ends: "_StreamEnds"
    ) -> set[RequiredEvents]:
        """Return those of the events that the feeds have passed, whether or not an instance received them."""
        await ends.update(required)
        positions = {
            each: (each.saga, each.stream, (end.epoch, end.sequence))
            for each in required
            if (end := ends.find(each)) is not None
        }
        passed = await self._feeds.find_passed(set(positions.values())) if positions else set()
        return {each for each, position in positions.items() if position in passed}


class _StreamEnds:
    """The ends of streams that were of the required version or later when they were read."""

    def __init__(self, read_stream_end: ReadStreamEnd) -> None:
        self._read_stream_end = read_stream_end
        self._ends: dict[RequiredEvents, StreamEnd] = {}
        self._read_at: dict[RequiredEvents, float] = {}

    def find(self, required: RequiredEvents) -> StreamEnd | None:
        return self._ends.get(required)

    async def update(self, required: Collection[RequiredEvents]) -> None:
        """Read ends that are missing or old: at most MAX_END_READS, the oldest first."""
        now = monotonic()
        due = [each for each in required if each not in self._ends or now - self._read_at[each] > MAX_END_AGE]
        chosen = sorted(due, key=lambda each: self._read_at.get(each, 0.0))[:MAX_END_READS]
        ends = await asyncio.gather(*(self._read_stream_end(each.stream) for each in chosen))
        for each, end in zip(chosen, ends, strict=True):
            self._read_at[each] = now
            self._replace(each, end)

    def _replace(self, required: RequiredEvents, end: StreamEnd | None) -> None:
        previous = self._ends.get(required)
        # A sufficient end of the same epoch stays, because the end of a busy stream moves on for ever.
        if end is None or (previous is not None and previous.epoch == end.epoch):
            return
        if end.version >= required.version:
            self._ends[required] = end
        else:
            self._ends.pop(required, None)

    def forget_all_but(self, kept: set[RequiredEvents]) -> None:
        for each in self._read_at.keys() - kept:
            del self._read_at[each]
            self._ends.pop(each, None)
