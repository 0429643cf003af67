"""The replay of one parked aggregate: its events are read from its own subject and applied in slices.

How it works:

- A replay reads on behind the version of the view, wherever it is parked, and writes each slice by
  compare-and-set like any other write. The view stays parked until its subject has ended, so that the session
  ignores the aggregate's new events. Each write keeps the progress; a kill repeats one slice.
- A slice ends after MAX_SLICE events, or when its fold would take longer than FOLD_TIME: events of other
  aggregates are applied between two slices.
- At the end of the subject the view is unparked. The session has ignored the events that arrived before, and
  the checkpoint has passed them. They were published before the unparking, so the replay reads on until the
  subject has ended once more. Until then the aggregate stays listed as parked: if this process dies, the next
  one repeats this part.
- A view that is archived, that cannot be read, or that an operator doubts, is first folded again up to its
  version (refold.py).
- An event that fails parks the aggregate again, with the next attempt after a longer pause.
"""

from collections.abc import Callable, Sequence
from time import perf_counter, time_ns
from typing import Any

from msgspec.structs import replace

from projector import clock
from projector.event_slices import EventSlices
from projector.fold import EventsMissing, FoldResult, fold
from projector.ports import EventFeed, Store
from projector.projection import Projection
from projector.records import Parked, Record, Update
from projector.refold import Refold
from projector.retry_schedule import RetryPolicy, compute_stale_since
from projector.skips import NO_SKIPS, Skips

STREAM_PAUSE = 1_000
"""Milliseconds before a view that waits for a stream with all events is tried again."""


class Replay:
    """The replay of one aggregate; `step` until it returns False.

    Args:
        projection: the fold from events to views.
        store: the views.
        feed: where the aggregate's events are read.
        retries: when a failed event is retried.
        observe: called with each successful update.
        view_id: the aggregate's id.
        stream: its stream.
        skips: the events to skip.
    """

    def __init__(
        self,
        projection: Projection[Any],
        store: Store,
        feed: EventFeed,
        retries: RetryPolicy,
        observe: Callable[[Sequence[Update]], None],
        view_id: str,
        stream: str,
        skips: Skips = NO_SKIPS,
    ) -> None:
        self._skips = skips
        self._projection = projection
        self._store = store
        self._retries = retries
        self._observe = observe
        self._view_id = view_id
        self._stream = stream
        self._feed = feed
        self._events = EventSlices(feed.open_aggregate(stream), stream)
        self._record: Record | None = None
        """The view as this replay has written it; None if it has to be loaded."""
        self._lacks_events = False
        self._refold: Refold | None = None
        self.failure: Parked | None = None
        """The record of the event that cannot be applied."""

    async def step(self) -> bool:
        """Apply the next slice of events; return False if the replay has ended, or failed (`failure`).

        Raises:
            BuildSuperseded: another build has begun.
            ReplicaBehind: the aggregate's events cannot be read to their end now.
        """
        record = self._record or await self._load()
        self._record = None  # after an error or a conflict the view is loaded again
        if self._refold is not None:
            await self._step_refold(self._refold)
            return self.failure is None
        if not await self._events.read_after(record.version):
            return await self._finish(record)
        update = self._fold_slice(record)
        if self._lacks_events:  # they are retried once the stream has them again
            await self._feed.request_removed_events()
        if await self._write(update) and update.failed_event is not None:
            self.failure = update.after.parked
        return self.failure is None

    async def _load(self) -> Record:
        """Load the view, and find the events behind its version; all of them if it is to be folded again."""
        record = (await self._store.load([self._view_id]))[self._view_id]
        if not record.is_hash:
            await self._store.restore_hash(self._view_id, 0)
            record = (await self._store.load([self._view_id]))[self._view_id]
        if record.parked is not None:
            await self._skips.look_up(self._stream, record.parked.version)
        refold = Refold.is_needed(record) or await self._must_restore(record)
        self._refold = Refold(self._projection, record, self._skips.of(self._stream)) if refold else None
        await self._events.seek(1 if self._refold else record.version + 1)
        return record

    async def _must_restore(self, record: Record) -> bool:
        """Return whether an event has arrived for a view that was archived since it was unparked."""
        if not record.archived:
            return False
        await self._events.seek(record.version + 1)
        return await self._events.read_after(record.version)

    async def _step_refold(self, refold: Refold) -> None:
        """Fold the next slice again, and write its history; after the last one write the view."""
        unread = not refold.is_complete and await self._events.read_after(refold.version)
        if not unread and not refold.lacks_events:
            update = refold.finish()
            self._refold = None
            if update is None:
                self._record = refold.empty()
            else:
                await self._write(update)
            return
        events, started = self._events.take() if unread else [], perf_counter()
        try:
            update = refold.fold(events)
        except Exception as error:  # any event may have caused it
            waits = isinstance(error, EventsMissing) and await self._feed.request_removed_events()
            await self._park_refold(refold.record, error, waits)
            return
        self._events.adapt_size(len(events), perf_counter() - started)
        if update is None or await self._write(update):
            self._record = refold.record = refold.record if update is None else update.after

    async def _park_refold(self, record: Record, error: Exception, waits: bool) -> None:
        """Park the view again; waiting for a stream with all events is no attempt."""
        before, now = record.parked, clock.read_milliseconds()
        version = before.version if before else record.version + 1
        parked = self._retries.park(self._stream, version, error, before, now)
        parked = replace(parked, refold=before is not None and before.refold)
        if waits:
            attempts = before.attempts if before else 0
            parked = replace(parked, state="retrying", attempts=attempts, next_attempt=now + STREAM_PAUSE)
        after = replace(record, parked=parked, revision=record.revision + 1)
        if await self._write(Update(record, after, None, (), None, time_ns())):
            self.failure = parked

    async def _finish(self, record: Record) -> bool:
        """Unpark the view; if it is unparked already, the replay has ended."""
        if record.parked is None:
            await self._store.unlist_parked(self._view_id)
            return False
        unparked = replace(record, parked=None, revision=record.revision + 1)
        await self._write(Update(record, unparked, None, (), None, time_ns()))
        return True

    def _fold_slice(self, record: Record) -> Update:
        events = self._events.take()
        started_ns, started = time_ns(), perf_counter()
        result = fold(self._projection, record, events, skipped=self._skips.of(self._stream))
        self._lacks_events = isinstance(result.error, EventsMissing)
        self._events.adapt_size(len(result.applied_events), perf_counter() - started)
        after = replace(
            result.record, parked=self._create_parked(record, result), revision=record.revision + 1
        )
        return Update(
            record,
            after,
            result.content,
            result.applied_events,
            result.failed_event,
            started_ns,
            is_backfill=True,
        )

    def _create_parked(self, before: Record, result: FoldResult) -> Parked | None:
        """Return the record of a failure, or of the progress while the view is parked."""
        version, now = result.record.version + 1, clock.read_milliseconds()
        if result.error is not None:
            failed = None if isinstance(result.error, EventsMissing) else result.failed_event
            stale_since = compute_stale_since(failed, now)
            return self._retries.park(self._stream, version, result.error, before.parked, now, stale_since)
        if before.parked is None:
            return None
        return replace(
            before.parked,
            version=version,
            attempts=0,
            next_attempt=now,
            state="retrying",
            tried_by=(),
            place="",
        )

    async def _write(self, update: Update) -> bool:
        """Write a view; return False on a version conflict, after which it has to be loaded again."""
        if await self._store.write([update]):
            return False
        self._record = update.after
        self._observe([update])
        return True
