"""Finds the due timers whose turn it is: after an outage, replies and events that are due come first.

How it works:

- What a timer waits for is fixed when it is first seen due: the steps of its instance that have no answer,
  and the last messages that JetStream has of the streams that the saga follows. Later steps and events do not
  delay it, so it fires in the end, however busy its saga is.
- Of its own stream an instance needs the messages of that stream alone. An event of a stream with a key may
  be of any stream of that type, so the feeds of all partitions must pass the messages that are there.
- The messages are read once the relay has confirmed, at most CONFIRMATION_AGE seconds before the timer was
  seen, that everything committed is in the stream: a relay that was away publishes first what it missed.
- Nothing holds a timer for ever. It fires without a reply after QUIET seconds if the step's target is silent,
  and after MAX_WAIT seconds in any case; without an event after QUIET seconds in which no feed of its saga
  advanced, for instance because JetStream or the relay is away.
- This process remembers what its timers wait for. Another one that takes over a lease begins again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

from contracts import streams
from process_manager.dispatch.targets import target_of
from process_manager.postgres.due_work import DueTimer, Feed
from process_manager.postgres.progress_store import InstanceProgress
from process_manager.postgres.store import SagaStore
from process_manager.queries.awaited_events import StreamEnd
from process_manager.saga import Saga
from runtime.jetstream import Publication
from runtime.process import logs

QUIET = 15.0
"""Seconds that a timer waits for the step of a silent target, and for feeds that do not advance."""
MAX_WAIT = 300.0
"""Seconds that a timer waits for the steps of other targets."""
CONFIRMATION_AGE = 1.0
"""Seconds before a timer is first seen in which the relay must have confirmed the stream."""
READ_TIMEOUT = 1.0
"""Seconds to read the ends of streams of one batch of timers; what is missing is read with the next one."""
INITIAL_PAUSE, MAX_PAUSE = 0.25, 2.0
"""Seconds until a timer that waits is looked at again."""
FORGET_AFTER = 60.0
"""Seconds after which a timer that was not seen again is forgotten: it was cancelled, or its lease moved."""

ReadStreamEnds = Callable[[Collection[str]], Awaitable[Mapping[str, StreamEnd | None]]]
"""Returns the last message of each of these subjects; None if JetStream has no message of it."""

log = logs.get_logger(__name__)


@dataclass
class _Wait:
    """A timer that was due, and what it waits for. Times are those of `time.monotonic`."""

    began: float
    steps: Mapping[tuple[str, int], str]
    """By step and attempt without an answer: the target."""
    subjects: Mapping[str, Feed]
    """The subjects whose messages have to be delivered, with their feeds."""
    ends: dict[str, StreamEnd | None] = field(default_factory=dict)
    """By subject, as far as they could be read."""
    advanced_at: float = 0.0
    sequences: Mapping[Feed, object] = field(default_factory=dict)
    pause: float = INITIAL_PAUSE
    seen_at: float = 0.0

    def update(self, checkpoints: Mapping[Feed, object], now: float) -> None:
        sequences = {feed: checkpoints.get(feed) for feed in self.subjects.values()}
        if sequences != self.sequences:
            self.sequences, self.advanced_at = sequences, now

    def awaits_reply(self, pending: Collection[tuple[str, int]], silent: Container[str], now: float) -> bool:
        """Return whether one of these steps is among those that it waits for, and not for too long."""
        waited = now - self.began
        return any(
            waited < (QUIET if target in silent else MAX_WAIT)
            for step, target in self.steps.items()
            if step in pending
        )

    def awaits_event(self, progress: InstanceProgress, own_subject: str, now: float) -> bool:
        """Return whether a message is not delivered yet, while the feeds advance."""
        return now - self.advanced_at < QUIET and any(
            subject not in self.ends
            or not _is_delivered(self.ends[subject], progress, feed, is_own=subject == own_subject)
            for subject, feed in self.subjects.items()
        )


def _is_delivered(end: StreamEnd | None, progress: InstanceProgress, feed: Feed, *, is_own: bool) -> bool:
    if end is None or (is_own and progress.version >= end.version):
        return True
    epoch, sequence = progress.checkpoints.get(feed, ("", 0))
    return epoch == end.epoch and sequence >= end.sequence


class PrecedingInputs:
    """The inputs that the due timers of this process wait for.

    Args:
        sagas: the sagas by name.
        store: reads how far instances are.
        read_ends: reads the ends of streams.
        list_silent: returns the targets that do not answer.
        get_publication: returns the relay's last confirmation of the stream; None if there was none.
    """

    def __init__(
        self,
        sagas: Mapping[str, Saga[Any]],
        store: SagaStore,
        read_ends: ReadStreamEnds,
        list_silent: Callable[[], Container[str]],
        get_publication: Callable[[], Publication | None],
    ) -> None:
        self._sagas = sagas
        self._store = store
        self._read_ends = read_ends
        self._list_silent = list_silent
        self._get_publication = get_publication
        self._waits: dict[DueTimer, _Wait] = {}

    async def choose(
        self, timers: Sequence[DueTimer], deadlines: Collection[DueTimer] = ()
    ) -> tuple[list[DueTimer], dict[DueTimer, float]]:
        """Return the timers to fire now, and of the others the seconds until they are looked at again.

        Args:
            timers: all that are due.
            deadlines: those among them without an instance, whose streams' first events are delivered.
        """
        await self._begin_waits([timer for timer in timers if timer not in self._waits])
        await self._read_missing_ends(timers)
        # After the ends, so that events delivered meanwhile count as delivered.
        progress, now = await self._store.progress.read_instances(timers), monotonic()
        silent = self._list_silent()
        without_instance = set(deadlines)
        ready: list[DueTimer] = []
        pauses: dict[DueTimer, float] = {}
        for timer in timers:
            wait, own = self._waits[timer], progress[timer.saga, timer.id]
            if timer in without_instance:
                own = replace(own, version=1)
            wait.seen_at = now
            wait.update(own.checkpoints, now)
            replies = wait.awaits_reply(own.pending.keys(), silent, now)
            if replies or wait.awaits_event(own, self._find_own_subject(timer), now):
                pauses[timer], wait.pause = wait.pause, min(wait.pause * 2, MAX_PAUSE)
            else:
                ready.append(timer)
        self._forget(ready, now)
        return ready, pauses

    async def _begin_waits(self, timers: Sequence[DueTimer]) -> None:
        if not timers:
            return
        progress, now = await self._store.progress.read_instances(timers), monotonic()
        for timer in timers:
            pending = progress[timer.saga, timer.id].pending
            steps = {step: target_of(method) for step, method in pending.items()}
            self._waits[timer] = _Wait(now, steps, self._list_subjects(timer), advanced_at=now)

    def _list_subjects(self, timer: DueTimer) -> dict[str, Feed]:
        saga = self._sagas[timer.saga]
        subjects: dict[str, Feed] = {}
        for subscription in saga.subscribes_to:
            type_ = subscription.stream_type
            if subscription.key is None:
                feed = Feed(saga.name, type_, streams.partition(timer.id))
                subjects[self._find_own_subject(timer)] = feed
            else:
                for partition in range(streams.PARTITIONS):
                    feed = Feed(saga.name, type_, partition)
                    subjects[streams.partition_subject(partition, type_)] = feed
        return subjects

    def _find_own_subject(self, timer: DueTimer) -> str:
        type_ = self._sagas[timer.saga].own_type
        return streams.subject(streams.stream_name(type_, timer.id)) if type_ else ""

    async def _read_missing_ends(self, timers: Sequence[DueTimer]) -> None:
        publication = self._get_publication()
        if publication is None:
            return
        confirmed_at = publication.asked_at + CONFIRMATION_AGE
        waits = [wait for timer in timers if (wait := self._waits[timer]).began <= confirmed_at]
        missing = {subject for wait in waits for subject in wait.subjects if subject not in wait.ends}
        if not missing:
            return
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                ends = await self._read_ends(missing)
        except Exception as error:  # for example, JetStream is away: QUIET bounds the wait
            log.debug("Reading ends of streams failed", error=repr(error))
            return
        for wait in waits:
            for subject in wait.subjects.keys() & ends.keys():
                wait.ends.setdefault(subject, ends[subject])

    def _forget(self, fired: Collection[DueTimer], now: float) -> None:
        for timer in fired:
            del self._waits[timer]
        for timer in [each for each, wait in self._waits.items() if now - wait.seen_at > FORGET_AFTER]:
            del self._waits[timer]
