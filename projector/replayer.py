"""Replays the parked aggregates of one projection beside its session.

How it works. The schedule names the aggregates that are due. Each is replayed in a task of its own, at most
MAX_REPLAYS at once. Before each slice a task waits for its turn, which all projections of the process share,
and then pauses for as long as the slice took. So all replays together use half of the process's time at most,
a short one does not wait for a long one, and the sessions go on.

The store's list of parked aggregates is read at the start, and every REFRESH_INTERVAL: an operator or another
projector may have changed it.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import partial
from time import monotonic, perf_counter, time_ns
from typing import Any

from msgspec.structs import replace

from contracts import streams
from projector import clock
from projector.ports import BuildSuperseded, EventFeed, Store
from projector.projection import Projection
from projector.records import Parked, Update
from projector.replay import Replay
from projector.retry_schedule import RetryPolicy, RetrySchedule, make_due
from projector.skips import NO_SKIPS, Skips
from runtime.backoff import compute_pause
from runtime.process import logs
from runtime.process.lifecycle import cancel_and_wait

MAX_REPLAYS = 20
"""Aggregates of one projection that are replayed at once, at most."""
MAX_PAUSE = 0.25
"""Seconds between two slices, at most."""
REFRESH_INTERVAL = 5.0
"""Seconds between two readings of the list; a long list is read less often."""
ERROR_PAUSE = 2.0
"""Longest pause, in seconds, before a replay that an error has ended is repeated."""

log = logs.get_logger(__name__)


class Replayer:
    """Replays parked aggregates.

    Args:
        projection: the fold from events to views.
        store: the views.
        feed: where an aggregate's events are read.
        retries: when a failed event is retried.
        observe: called with every successful update.
        schedule: the aggregates to replay.
        turn: shared by all replayers of the process.
        skips: the events to skip.
    """

    def __init__(
        self,
        projection: Projection[Any],
        store: Store,
        feed: EventFeed,
        retries: RetryPolicy,
        observe: Callable[[Sequence[Update]], None],
        schedule: RetrySchedule,
        turn: asyncio.Semaphore,
        skips: Skips = NO_SKIPS,
    ) -> None:
        self._skips = skips
        self._failures = logs.LimitedErrors(
            log, "Replay failed", level="warning", projection=projection.view.projection
        )
        self._store = store
        self._open_replay = partial(Replay, projection, store, feed, retries, observe, skips=skips)
        self._schedule = schedule
        self._turn = turn
        self._active: dict[str, asyncio.Task[None]] = {}
        self._refresh_at = 0.0

    async def run(self, partitions: Collection[int]) -> None:
        """Replay the aggregates of these partitions that are due, until cancelled.

        Raises:
            BuildSuperseded: another build has begun.
        """
        self._refresh_at = 0.0
        try:
            while True:
                if monotonic() >= self._refresh_at:
                    await self._refresh(partitions)
                due = self._schedule.take_due(
                    clock.read_milliseconds(), MAX_REPLAYS - len(self._active), self._active
                )
                for view_id, parked in due:
                    self._active[view_id] = asyncio.create_task(self._replay(view_id, parked))
                await self._wait()
                self._remove_ended()
        finally:
            await cancel_and_wait(*self._active.values())
            self._active.clear()

    async def replay(self, view_id: str, stream: str) -> Parked | None:
        """Replay one aggregate; return the record of the failure if one of its events cannot be applied."""
        replay = self._open_replay(view_id, stream)
        while True:
            async with self._turn:
                began = perf_counter()
                if not await replay.step():
                    return replay.failure
                await asyncio.sleep(min(MAX_PAUSE, perf_counter() - began))

    async def _replay(self, view_id: str, parked: Parked) -> None:
        try:
            failure = await self.replay(view_id, parked.stream)
        except BuildSuperseded:
            raise
        except Exception as error:  # also a bug in this code: the other aggregates must go on
            self._failures.report(recordId=view_id, error=repr(error))
            pause = int(1000 * compute_pause(0, ERROR_PAUSE, ERROR_PAUSE))
            failure = replace(parked, state="retrying", next_attempt=clock.read_milliseconds() + pause)
        if failure is not None:
            self._schedule.add(view_id, failure)

    async def _refresh(self, partitions: Collection[int]) -> None:
        """Schedule the aggregates that the store lists and this process does not know."""
        began = monotonic()
        for stream, version in await self._skips.refresh():
            if streams.partition(view_id := streams.aggregate_id(stream)) in partitions:
                await self._refold_if_passed(view_id, stream, version)
        for view_id, parked in (await self._store.load_parked()).items():
            if view_id not in self._active and streams.partition(view_id) in partitions:
                is_skipped = parked.version in self._skips.of(parked.stream)
                self._schedule.add(view_id, make_due(parked) if is_skipped else parked)
        self._refresh_at = monotonic() + max(REFRESH_INTERVAL, 100 * (monotonic() - began))

    async def _refold_if_passed(self, view_id: str, stream: str, version: int) -> None:
        """Have a view folded again that has applied an event which was skipped meanwhile."""
        record = (await self._store.load([view_id]))[view_id]
        if record.version < version or record.parked is not None:
            return
        now = clock.read_milliseconds()
        text = f"version {version} was skipped after it had been applied"
        parked = Parked(
            stream, record.version + 1, text, now, 0, now, "retrying", refold=True, stale_since=now
        )
        after = replace(record, parked=parked, revision=record.revision + 1)
        # A conflict needs no repetition: the writer folds on what it has read, and verify shows what is left.
        await self._store.write([Update(record, after, None, (), None, time_ns())])

    async def _wait(self) -> None:
        """Wait until a replay has ended, an aggregate is due or was added, or the list is to be read."""
        changed = asyncio.create_task(self._schedule.changed.wait())
        seconds = self._refresh_at - monotonic()
        if len(self._active) < MAX_REPLAYS:
            seconds = min(seconds, self._schedule.seconds_until_due(clock.read_milliseconds(), self._active))
        try:
            await asyncio.wait(
                {changed, *self._active.values()},
                timeout=max(0.0, seconds),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            changed.cancel()
        self._schedule.changed.clear()

    def _remove_ended(self) -> None:
        for view_id, task in list(self._active.items()):
            if task.done():
                del self._active[view_id]
                task.result()
