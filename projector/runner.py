"""Runs one projection over this process's partitions until the process stops.

How it works. The runner works in sessions. A session pins the leased partitions, reads the build and the
stream's identity (and begins another build if the two do not match), opens a reader at the stored
checkpoints, and applies batches; beside it, parked aggregates are replayed. It ends when the leases, the
build or the stream change, or when anything fails. The next session starts from the store again. So there is
one path for start, recovery and change of partitions, and no state survives from one session to the next.
"""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Any, NamedTuple

from contracts import streams
from projector import clock
from projector.checkpoints import Checkpoints
from projector.forgotten_views import ForgottenViews
from projector.pace import Pace
from projector.ports import Build, EventFeed, Leases, Store
from projector.projection import Projection
from projector.replayer import Replayer
from projector.retry_schedule import RETRY_POLICY, RetryPolicy, RetrySchedule
from projector.session import MAX_WAIT, Session
from projector.skips import NO_SKIPS, Skips
from projector.writer import Observer, Writer
from runtime.backoff import Backoff
from runtime.jetstream import StreamIdentity
from runtime.process import logs
from runtime.process.lifecycle import cancel_and_wait

RECREATION_INTERVAL = 1.0
"""Seconds between requests for a stream with all events; the relay looks once a second."""
INITIAL_PAUSE, MAX_PAUSE = 0.05, 2.0
"""Seconds between failed sessions."""

log = logs.get_logger(__name__)


class Progress(NamedTuple):
    """How far one process's part of a projection is."""

    projection: str
    oldest_unapplied: float | None
    """Seconds since the publication of the oldest event that was read and is not written."""
    staleness: float | None
    """Seconds for which views may lack events; None if it is unknown, as during a build."""
    partitions_building: int
    """Those that have not caught up since the build began."""


class Runner:
    """Keeps one projection's views up to date.

    Args:
        projection: the fold from events to views.
        store: the views and checkpoints.
        feed: the source of the events.
        leases: the partitions of this process.
        retries: when a failed event is retried.
        observe: called with every batch of successful updates.
        skips: the events to skip.
        replay_turn: shared with the other runners of the process, so that all replays take turns.
        pace: of builds.
    """

    def __init__(
        self,
        projection: Projection[Any],
        store: Store,
        feed: EventFeed,
        leases: Leases,
        retries: RetryPolicy = RETRY_POLICY,
        observe: Observer = lambda _: None,
        skips: Skips = NO_SKIPS,
        replay_turn: asyncio.Semaphore | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._pace = pace or Pace()
        self._name = projection.view.projection
        self._store = store
        self._feed = feed
        self._skips = skips
        self._leases = leases
        self._schedule = RetrySchedule(retries.must_retry)
        forgotten = ForgottenViews(projection, store, feed, skips)
        self._writer = Writer(projection, store, retries, observe, self._schedule, skips, forgotten)
        turn = asyncio.Semaphore(1) if replay_turn is None else replay_turn
        self._replayer = Replayer(projection, store, feed, retries, observe, self._schedule, turn, skips)
        self._waits_for_stream = False
        self._session: Session | None = None
        """The session, also after it has failed, until the next one has begun."""
        self._partitions: frozenset[int] = frozenset()
        self._failures = logs.RepeatedErrors(log, "Session failed", projection=self._name)

    async def run(self, stopping: asyncio.Event) -> None:
        """Run sessions until `stopping` is set, then finish the current batch.

        A failed session is retried without limit. An error of Redis or NATS is not caused by an event, so it
        parks no aggregate.
        """
        backoff = Backoff(INITIAL_PAUSE, MAX_PAUSE)
        while not stopping.is_set():
            began = monotonic()
            try:
                await self._run_session(stopping)
            except Exception as error:  # also a bug in this code: the other projections must keep running
                self._failures.report(error)
                if monotonic() - began >= MAX_PAUSE:
                    backoff.reset()
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), backoff.next_pause())

    def describe_progress(self) -> Progress:
        """Return how far this process's part of the projection is; in any thread."""
        session = self._session
        oldest = None if session is None else session.find_oldest()
        stale_since = self._writer.find_stale_since(self._partitions)
        return Progress(
            self._name,
            None if oldest is None else max(0.0, (datetime.now(UTC) - oldest).total_seconds()),
            None if stale_since is None else max(0.0, (clock.read_milliseconds() - stale_since) / 1000),
            len(self._writer.building & self._partitions),
        )

    async def _run_session(self, stopping: asyncio.Event) -> None:
        """Work on the partitions that are leased now, until the leases change."""
        with self._leases.pin() as partitions:
            self._partitions = partitions
            if not partitions:
                self._session = None
            found = await self._ensure_build() if partitions else None
            if found is None:
                await asyncio.sleep(MAX_WAIT)
                return
            build, identity = found
            await self._skips.begin(identity.incarnation)
            self._writer.begin_session(build.as_of, partitions)
            self._schedule.clear()
            checkpoints = Checkpoints(identity.epoch, build.checkpoints, partitions)
            reader = await self._feed.open(identity.epoch, checkpoints.starts)
            session = self._session = Session(self._writer, self._feed, identity, checkpoints, reader)
            replays = asyncio.create_task(self._replayer.run(partitions))
            applied = 0
            try:
                while not stopping.is_set() and self._leases.partitions == partitions:
                    if self._writer.building and not await self._rest(applied, partitions, stopping):
                        continue
                    applied = await session.step()
                    if session.has_succeeded:
                        self._failures.reset()
                    if replays.done():
                        replays.result()  # raises: it ends by an error alone
                await session.finish()
                self._session = None
            except Exception:
                await session.settle()
                raise
            finally:
                await cancel_and_wait(replays)
                await session.close()
                await reader.close()

    async def _rest(self, applied: int, partitions: frozenset[int], stopping: asyncio.Event) -> bool:
        """Keep the pace of a build until it may go on; return False if the session has to end before."""
        share = len(partitions) / streams.PARTITIONS
        while rest := self._pace.compute_rest(applied, share):
            if stopping.is_set() or self._leases.partitions != partitions:
                return False
            await asyncio.sleep(rest)
            applied = 0
        return True

    async def _ensure_build(self) -> tuple[Build, StreamIdentity] | None:
        """Return the build and the stream of the same database incarnation; begin a build if there is none.

        While there is no stream, return None: a relay creates it, and may start after this process. While
        housekeeping has removed events that the build needs, request a stream that has all of them.
        """
        while True:
            # The build is read before the stream. In the other order a slow projector could hold the identity
            # from before a restore of the database, find the newer build and replace it by an outdated one.
            # In this order its `begin_build` changes nothing, because the build is not the one that it read.
            build = await self._store.read_build()
            identity = await self._feed.read_identity()
            if identity is None:
                if not self._waits_for_stream:
                    log.info("Waiting for the stream", projection=self._name)
                self._waits_for_stream = True
                return None
            self._waits_for_stream = False
            if build is not None and build.incarnation == identity.incarnation:
                if all(map(identity.has_events_after, build.positions)):
                    return build, identity
                await self._feed.request_removed_events()
                await asyncio.sleep(RECREATION_INTERVAL)
                continue
            # Only a build that replaces another one is a sign of a fault.
            log_start = log.info if build is None else log.warning
            log_start("Projection build started", projection=self._name, incarnation=identity.incarnation)
            await self._store.begin_build(identity.incarnation, identity.epoch)
