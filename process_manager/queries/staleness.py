"""The bound on the age of answers about sagas, sent with every response in trailing metadata.

How it works. The relay confirms the moment up to which everything committed is in the stream, and the shared
reading then checks the stream (`StreamCheck`). A sample reads the sequence of the last event of each type and
partition that sagas follow: a target. A saga has reached a target once all its checkpoints, which any process
manager may have advanced, are at these sequences. Its answers count from the moment of the last target that
it has reached. At rest a sample takes one statement: the checkpoints are read again if their digest differs.

A saga with events that wait, because a stream is parked or an instance failed, has no bound: since when they
wait, but not when they were committed, is on record.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from decimal import Decimal
from math import ceil
from time import monotonic
from typing import Any, NoReturn

import msgspec

from contracts import streams
from process_manager.postgres.due_work import Checkpoint, Feed
from process_manager.postgres.progress_store import FeedProgress
from process_manager.queries.feed_reader import FeedReader
from process_manager.saga import Saga
from runtime.grpc.metadata import STALENESS
from runtime.grpc.method import Context, Handler
from runtime.grpc.server import Service
from runtime.jetstream import Publication, StreamCheck, StreamIdentity
from runtime.process import logs

INTERVAL = 0.5
"""Seconds between two samples while a saga is behind; each check of the stream begins one at once."""
BUSY_INTERVAL = 2.0
"""Seconds between two samples while events arrive: each then reads the ends of all types and partitions."""
MAX_TARGETS = 30
"""Targets that a saga which is behind may have before it; then every second one is dropped."""

log = logs.get_logger(__name__)

ReadEnds = Callable[[Collection[tuple[str, int]]], Awaitable[Mapping[tuple[str, int], int]]]
"""Returns the sequence of the last event by stream type and partition; 0 for none."""


class Target(msgspec.Struct, frozen=True):
    """Everything that was committed before a moment is in the stream, up to these ends."""

    moment: float
    """Of the monotonic clock, in seconds."""
    epoch: str
    ends: Mapping[tuple[str, int], int]

    def is_reached(self, saga: Saga[Any], checkpoints: Mapping[Feed, Checkpoint]) -> bool:
        return all(
            _get_sequence(checkpoints, Feed(saga.name, *end), self.epoch) >= sequence
            for end, sequence in self.ends.items()
            if end[0] in _list_types(saga)
        )


def _get_sequence(checkpoints: Mapping[Feed, Checkpoint], feed: Feed, epoch: str) -> int:
    of_epoch, sequence = checkpoints.get(feed, ("", 0))
    return sequence if of_epoch == epoch else 0


def _list_types(saga: Saga[Any]) -> Collection[str]:
    return {subscription.stream_type for subscription in saga.subscribes_to}


class SagaStaleness:
    """Samples since when the sagas of this process may lack events.

    Args:
        sagas: the definitions.
        feeds: reads the checkpoints.
        read_feed_progress: returns how far the feeds of these sagas are.
        get_check: returns the last check of the stream; None if there was none.
        read_identity: reads the stream's identity.
        read_ends: reads the ends of types and partitions.
    """

    def __init__(
        self,
        sagas: Iterable[Saga[Any]],
        feeds: FeedReader,
        read_feed_progress: Callable[[Collection[str]], Awaitable[FeedProgress]],
        get_check: Callable[[], StreamCheck | None],
        read_identity: Callable[[], Awaitable[StreamIdentity | None]],
        read_ends: ReadEnds,
    ) -> None:
        self._sagas = list(sagas)
        self._feeds = feeds
        self._read_feed_progress = read_feed_progress
        self._get_check = get_check
        self._read_identity = read_identity
        self._read_ends = read_ends
        self._targets: deque[Target] = deque()
        self._moments: dict[str, float] = {}
        self._checkpoints: Mapping[Feed, Checkpoint] = {}
        self._digest: Decimal | None = None
        """Of these checkpoints."""
        self._checked = asyncio.Event()
        self._waiting: Collection[str] = ()
        """Sagas with events that wait."""
        self._last_stream: tuple[str, int] | None = None
        self._busy_until = 0.0

    async def run(self) -> NoReturn:
        """Take samples until cancelled."""
        failures = logs.RepeatedErrors(log, "Age of sagas not sampled")
        while True:
            try:
                await self.take_sample()
                failures.reset()
            except Exception as error:  # NATS or PostgreSQL is away: the last samples stay, and grow old
                failures.report(error)
            await self._wait_for_check()

    def note_check(self) -> None:
        """Let the next sample begin: the stream has been checked."""
        self._checked.set()

    async def _wait_for_check(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(INTERVAL if self._is_behind() else None):
                await self._checked.wait()
        self._checked.clear()

    def _is_behind(self) -> bool:
        return bool(self._targets) and self._targets[-1].moment > min(self._moments.values(), default=-1.0)

    async def take_sample(self) -> None:
        """Add a target if there is a confirmation, and find out which ones are reached."""
        check = self._get_check()
        publication, stream = (check.publication, check.identity) if check else (None, None)
        if publication and stream and _has_confirmed(stream, publication):
            await self._add_target(publication, stream)
        if not self._targets:
            return  # nothing is confirmed since this process began; perhaps NATS has not started yet
        progress = await self._read_progress([saga.name for saga in self._sagas])
        for saga in self._sagas:
            reached = [each.moment for each in self._targets if each.is_reached(saga, self._checkpoints)]
            self._moments[saga.name] = max([self._moments.get(saga.name, -1.0), *reached])
        self._waiting = progress.waiting
        while len(self._targets) > 1 and self._targets[0].moment < min(self._moments.values()):
            self._targets.popleft()

    async def _read_progress(self, sagas: Collection[str]) -> FeedProgress:
        """Return how far the feeds are, after their checkpoints were read if some have changed."""
        progress = await self._read_feed_progress(sagas)
        if progress.checkpoints_digest == self._digest:
            return progress
        self._checkpoints = await self._feeds.read_checkpoints(sagas)
        self._digest = progress.checkpoints_digest
        # Again, since a checkpoint that has advanced meanwhile may have passed an event that waits.
        return await self._read_feed_progress(sagas)

    async def _add_target(self, publication: Publication, stream: StreamIdentity) -> None:
        end = (stream.epoch, stream.last_sequence)
        if end == self._last_stream and self._targets:
            ends = self._targets.pop().ends  # nothing was published since: the same ends, a later moment
        elif monotonic() < self._busy_until:
            return
        else:
            types = {each for saga in self._sagas for each in _list_types(saga)}
            ends = await self._read_ends([(each, p) for each in types for p in range(streams.PARTITIONS)])
            again = await self._read_identity()
            if again is None or again.epoch != stream.epoch:
                return  # the ends could be of either stream
            self._busy_until = monotonic() + BUSY_INTERVAL
            self._last_stream = end
        self._targets.append(Target(publication.asked_at, stream.epoch, ends))
        if len(self._targets) > MAX_TARGETS:
            last = self._targets.pop()
            self._targets = deque([*list(self._targets)[::2], last])

    def find_moment(self, sagas: Collection[str]) -> float | None:
        """Return the moment before which these sagas have processed all events; None if it is unknown."""
        moments = [self._moments.get(saga, -1.0) for saga in sagas]
        if not moments or min(moments) < 0 or any(saga in self._waiting for saga in sagas):
            return None
        return min(moments)


def _has_confirmed(stream: StreamIdentity, publication: Publication) -> bool:
    """Return whether a stream has what the relay has confirmed."""
    return (
        stream.complete and stream.epoch == publication.epoch and stream.last_sequence >= publication.sequence
    )


class AnswerAge:
    """The sagas that one answer is about, and the samples from before it was read."""

    def __init__(self, moments: Mapping[str, float | None]) -> None:
        self._moments = moments
        self._sagas: set[str] = set()

    def include(self, sagas: Iterable[str]) -> None:
        """Include sagas."""
        self._sagas.update(sagas)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the trailing metadata of a response that is sent now; empty if the bound is unknown."""
        moments = [self._moments.get(saga) for saga in self._sagas]
        known = [moment for moment in moments if moment is not None]
        if not moments or len(known) < len(moments):
            return ()
        return ((STALENESS, str(max(0, ceil((monotonic() - min(known)) * 1000)))),)


_AGE: ContextVar[AnswerAge | None] = ContextVar("age", default=None)


def include_sagas(sagas: Iterable[str]) -> None:
    """Record that the running call's answer is about these sagas."""
    if age := _AGE.get():
        age.include(sagas)


def add_staleness(service: Service, staleness: SagaStaleness, sagas: Collection[str]) -> Service:
    """Return a service whose responses, errors included, say how old they may be."""
    handlers = {
        name: _send_age(handler, staleness, tuple(sagas)) for name, handler in service.handlers.items()
    }
    return Service(service.descriptor, handlers)


def _send_age(handler: Handler, staleness: SagaStaleness, sagas: Collection[str]) -> Handler:
    async def handle(request: Any, context: Context) -> Any:
        age = AnswerAge({saga: staleness.find_moment([saga]) for saga in sagas})
        _AGE.set(age)  # gRPC runs every call in a task of its own
        try:
            return await handler(request, context)
        finally:
            context.set_trailing_metadata(age.metadata())

    return handle
