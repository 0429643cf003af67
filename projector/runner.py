"""Runs one projection over this process's partitions, for as long as the process lives.

Work is done in sessions. Whenever the partitions, the store's filling or the stream change, or anything
fails, the session ends, and the next one reads the store and begins where progress says: there is one way
to start and to recover.
"""

import asyncio
from contextlib import suppress
from time import monotonic
from typing import Any

from contracts import streams
from projector.checkpoints import Checkpoints
from projector.ports import Build, Feed, Leases, Store
from projector.projection import Projection
from projector.retry_schedule import RETRY_POLICY, RetryPolicy
from projector.session import WAIT, Session
from projector.writer import Observe, Writer
from runtime.backoff import Backoff
from runtime.jetstream import ReaderLost, StreamIdentity
from runtime.process import logs

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds between sessions that fail."""

log = logs.get_logger(__name__)


class Runner:
    """Keeps one projection's views up to the events.

    Args:
        projection: what to make of the events.
        store: where its views are.
        feed: where its events come from.
        leases: which partitions this process works on.
        retries: when to try again what cannot be applied.
        observe: is told of every write that the store has taken.
    """

    def __init__(
        self,
        projection: Projection[Any],
        store: Store,
        feed: Feed,
        leases: Leases,
        retries: RetryPolicy = RETRY_POLICY,
        observe: Observe = lambda _: None,
    ) -> None:
        self._name = projection.view.projection
        self._store = store
        self._feed = feed
        self._leases = leases
        self._writer = Writer(projection, store, feed, retries, observe)

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until told to stop, then finish the batch.

        What fails is tried again for ever: an error of Redis or NATS is no event's fault and parks nothing.
        """
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while not stopping.is_set():
            began = monotonic()
            try:
                await self._session(stopping)
            except Exception as error:  # also a bug of ours: other projections and partitions go on
                log.warning("Session ended", projection=self._name, reason=repr(error))
                if monotonic() - began >= LONGEST_PAUSE:
                    backoff.reset()
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), backoff.next_pause())

    async def _session(self, stopping: asyncio.Event) -> None:
        """Work on the partitions that are held now, until those change."""
        with self._leases.pinned() as partitions:
            if not partitions:
                await asyncio.sleep(WAIT)
                return
            build, identity = await self._enter()
            await self._resume(partitions)
            checkpoints = Checkpoints(identity.epoch, build.checkpoints, partitions)
            reader = await self._feed.open(identity.epoch, checkpoints.starts)
            try:
                session = Session(self._writer, self._store, self._feed, identity, checkpoints, reader)
                while not stopping.is_set() and self._leases.held == partitions:
                    await session.step()
            finally:
                await reader.close()

    async def _enter(self) -> tuple[Build, StreamIdentity]:
        """Return the store's filling and the stream that it is to be filled from; begin one if need be."""
        while True:
            build = await self._store.read_build()
            identity = await self._feed.identity()  # after the filling, else an older database's could win
            if identity is None:
                raise ReaderLost("there is no stream")
            if build is not None and build.incarnation == identity.incarnation:
                return build, identity
            log.warning("Projection is filled anew", projection=self._name, incarnation=identity.incarnation)
            await self._store.begin_build(identity.incarnation, identity.epoch)

    async def _resume(self, partitions: frozenset[int]) -> None:
        """Forget what others may have changed, and take over the parked aggregates of these partitions."""
        self._writer.forget()
        self._writer.schedule.reset(
            {
                view_id: parked
                for view_id, parked in (await self._store.parked()).items()
                if streams.partition(view_id) in partitions
            }
        )
