"""Applies events to views and writes them by compare-and-set.

How it works. `fold` groups a batch by view, loads the views that are not cached, folds the events into
copies and caches those. `write` writes all changed views and the checkpoints in one call. On a version
conflict it evicts the cached view, reloads it and folds again. Redelivery and concurrent projectors therefore
cost work but never change the result. The next batch may be folded during a write, since it finds the copies
in the cache; after a conflict it has to be folded again.

An event that cannot be applied parks its aggregate: the view keeps the state before that event, and the
record of the failure is stored with it. Later events of the aggregate are ignored while it is parked; the
replayer reads them again from the aggregate's subject. A gap in the versions parks the aggregate as well, to
be replayed at once: however long its stream is, the batch does not wait for it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from math import inf
from time import perf_counter, time_ns
from typing import Any

from msgspec.structs import replace

from contracts import streams
from contracts.envelope import RecordedEvent
from contracts.forgetting import FORGOTTEN
from projector import clock, metrics
from projector.fold import EventsMissing, fold
from projector.forgotten_views import ForgottenViews, is_forgotten
from projector.ports import NO_PARTITIONS, Advances, Store
from projector.projection import Projection
from projector.records import FoldedBatch, Parked, Record, Update
from projector.retry_schedule import RetryPolicy, RetrySchedule, compute_stale_since
from projector.skips import NO_SKIPS, Skips
from projector.view_cache import ViewCache

Observer = Callable[[Sequence[Update]], None]


class ViewUnreadable(Exception):
    """The stored view cannot be read."""


class SubjectForgotten(Exception):
    """A person was forgotten, whose data the view may have."""


class ViewArchived(Exception):
    """The stored view is a tombstone, and a new event has arrived."""


NO_EVENTS = FoldedBatch({}, (), 0.0)


def _has_forgotten(events: Sequence[RecordedEvent]) -> bool:
    return any(event.type == FORGOTTEN for event in events)


class Writer:
    """Writes one projection's views.

    Args:
        projection: the fold from events to views.
        store: the views and checkpoints.
        retries: when a failed event is retried.
        observe: called with every batch of successful updates.
        schedule: receives the aggregates that are parked.
        skips: the events to skip.
        forgotten: folds views again whose person was forgotten; None to leave all of them to replays.
    """

    def __init__(
        self,
        projection: Projection[Any],
        store: Store,
        retries: RetryPolicy,
        observe: Observer,
        schedule: RetrySchedule,
        skips: Skips = NO_SKIPS,
        forgotten: ForgottenViews | None = None,
    ) -> None:
        self._forgotten = forgotten
        self._skips = skips
        self._schedule = schedule
        self._projection = projection
        self._store = store
        self._retries = retries
        self._observe = observe
        self._cache = ViewCache(projection.view, store)
        self._as_of: dict[int, int] = {}
        """The times that the store has, by partition."""
        self._building: frozenset[int] = frozenset()

    def begin_session(self, as_of: Mapping[int, int], partitions: Collection[int]) -> None:
        """Evict all cached views: another projector may have had the session's partitions.

        Args:
            as_of: the times that the store has, by partition; missing until the partition has caught up.
            partitions: those of the session.
        """
        self._cache.clear()
        self._as_of = dict(as_of)
        self._building = frozenset(partitions).difference(as_of)

    @property
    def building(self) -> frozenset[int]:
        """The session's partitions that have not caught up since the build began."""
        return self._building

    def find_stale_since(self, partitions: Collection[int]) -> int | None:
        """Return the time before which the views of these partitions include all committed events.

        In milliseconds since 1970, by Redis's clock; None if it is unknown, as during a build.
        """
        times = [self._as_of.get(partition, 0) for partition in partitions]
        return min(times, default=0) or None

    async def fold(self, events: Iterable[RecordedEvent], max_seconds: float = inf) -> FoldedBatch:
        """Apply events to copies of their views.

        Events that a view already includes, and those of parked aggregates, are ignored. An event that cannot
        be applied parks its aggregate. Later batches are folded on the result, before or after it is written.

        Args:
            events: the events.
            max_seconds: that the handlers may take, of the process's time.

        Raises:
            OutOfTime: the handlers take longer. Nothing has changed.
        """
        pending_events: dict[str, list[RecordedEvent]] = {}
        for event in events:
            pending_events.setdefault(streams.aggregate_id(event.stream), []).append(event)
        new_ids = {view_id for view_id, events in pending_events.items() if events[0].version == 1}
        return await self._fold_views(pending_events, new_ids, max_seconds)

    async def _fold_views(
        self, pending_events: Mapping[str, Sequence[RecordedEvent]], new_ids: Set[str], max_seconds: float
    ) -> FoldedBatch:
        records = await self._cache.load(pending_events, new_ids)
        refolded: Mapping[str, tuple[Record, Sequence[RecordedEvent]]] = {}
        if self._forgotten is not None and any(map(_has_forgotten, pending_events.values())):
            refolded = await self._forgotten.refold(records, pending_events)
            self._cache.put(record for record, _ in refolded.values())
        began = perf_counter()
        updates = []
        for view_id, events in pending_events.items():
            record, events = refolded.get(view_id, (records[view_id], events))
            if view_id not in refolded and is_forgotten(record, events):
                update = self._park_forgotten(record, events)
            else:
                update = self._fold_view(record, events, began + max_seconds)
            if update is not None:
                updates.append(update)
        self._cache.put(update.after for update in updates)
        return FoldedBatch(pending_events, updates, perf_counter() - began)

    async def write(
        self,
        batch: FoldedBatch,
        advances: Advances = NO_PARTITIONS,
        as_of: Mapping[int, int] = NO_PARTITIONS,
    ) -> bool:
        """Write a batch, and advance the checkpoints; return when the store has both.

        Args:
            batch: of `fold`.
            advances: the checkpoints after the batch.
            as_of: the times up to which the views then include all events.

        Returns:
            Whether the stored views were those that the batch was folded on. If not, it was folded again, and
            one that was folded on it must be, too (`discard`).

        Raises:
            BuildSuperseded: another build has begun, or a checkpoint is not as expected.
        """
        was_current, began = True, perf_counter()
        # Each round writes the views that have no conflict. The checkpoints advance with the last round, so a
        # kill between two rounds repeats the whole batch.
        while conflicts := await self._write(batch.updates, advances, as_of):
            was_current = False
            pending_events = {view_id: batch.pending_events[view_id] for view_id in conflicts}
            # A view that was assumed to be new exists after all, so it has to be loaded.
            batch = await self._fold_views(pending_events, set(), inf)
        self._as_of.update({partition: time for partition, time in as_of.items() if time})
        if self._building:
            self._building = self._building.difference(as_of)
        if batch.pending_events:
            name = self._projection.view.projection
            metrics.WRITE_DURATION.record(perf_counter() - began, name)
            metrics.BATCH_SIZE.record(sum(map(len, batch.pending_events.values())), name)
        return was_current

    def discard(self, batch: FoldedBatch) -> None:
        """Forget the views of a batch that is not written."""
        self._cache.evict(batch.pending_events)

    def _fold_view(self, record: Record, events: Sequence[RecordedEvent], deadline: float) -> Update | None:
        """Return the update of a view by these events; None if it does not change."""
        if record.parked is not None:
            return None
        started = time_ns()
        if record.error:  # the replay folds the view again
            error = ViewUnreadable(record.error)
            first = min(event.version for event in events)
            # The version may be what cannot be read; the events before the first one were applied.
            version = record.version + 1 if record.version else first
            parked = self._create_parked(events[0].stream, version, error, None)
            after = replace(record, parked=parked, revision=record.revision + 1)
            return Update(record, after, None, (), None, started)
        if record.archived:  # the replay restores the view
            if all(event.version <= record.version for event in events):
                return None
            archived = ViewArchived("the view is archived and will be restored")
            parked = self._create_parked(events[0].stream, record.version + 1, archived, None)
            after = replace(record, parked=replace(parked, refold=True), revision=record.revision + 1)
            return Update(record, after, None, (), None, started)
        result = fold(self._projection, record, events, deadline, self._skips.of(events[0].stream))
        after = result.record
        if result.error is not None:
            failed = None if isinstance(result.error, EventsMissing) else result.failed_event
            parked = self._create_parked(events[0].stream, after.version + 1, result.error, failed)
            after = replace(after, parked=parked, revision=record.revision + 1)
        elif result.content is None:
            return None
        return Update(
            record,
            after,
            result.content,
            result.applied_events,
            result.failed_event,
            started,
            is_backfill=bool(self._building) and streams.partition(record.id) in self._building,
        )

    def _park_forgotten(self, record: Record, events: Sequence[RecordedEvent]) -> Update | None:
        """Return the update by which a replay folds the view again."""
        if record.parked is not None:
            return None
        forgotten = SubjectForgotten("a person was forgotten; the view is folded again")
        parked = self._create_parked(events[0].stream, record.version + 1, forgotten, None)
        after = replace(record, parked=replace(parked, refold=True), revision=record.revision + 1)
        return Update(record, after, None, (), None, time_ns())

    def _create_parked(
        self, stream: str, version: int, error: Exception, failed: RecordedEvent | None
    ) -> Parked:
        """Return the record of an aggregate whose event of this version failed; None if it is missing."""
        now = clock.read_milliseconds()
        # The view includes what had been committed by the time that the store has now.
        as_of = self._as_of.get(streams.partition(streams.aggregate_id(stream)), 0)
        stale_since = max(as_of, compute_stale_since(failed, now))
        # Publishers may overtake each other, and a view may be older than the checkpoint (deleted by hand,
        # or restored). The aggregate's own subject has all events, including those missing here.
        if isinstance(error, EventsMissing | ViewUnreadable | ViewArchived | SubjectForgotten):
            return self._retries.wait_for_events(stream, version, error, now, stale_since)
        return self._retries.park(stream, version, error, None, now, stale_since)

    async def _write(
        self,
        updates: Sequence[Update],
        advances: Advances = NO_PARTITIONS,
        as_of: Mapping[int, int] = NO_PARTITIONS,
    ) -> set[str]:
        """Write updates; return the ids of the views with a conflict."""
        if not updates:
            if advances:
                await self._store.advance(advances, as_of)
            return set()
        conflicts = await self._store.write(updates, advances, as_of)
        self._cache.evict(conflicts)
        written_updates = [update for update in updates if update.after.id not in conflicts]
        for update in written_updates:
            if update.after.parked is not None:
                self._schedule.add(update.after.id, update.after.parked)
        self._observe(written_updates)
        return conflicts
