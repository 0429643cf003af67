"""Applies events to views, writes them by compare-and-set, and replays parked aggregates.

How it works. `apply` groups a batch by view, loads the views that are not cached, folds the events into
copies and writes all changed views and the checkpoints in one call. On a version conflict the writer evicts
the cached view, reloads it and folds again. Redelivery and concurrent projectors therefore cost work but
never change the result. A gap in the versions is filled from the aggregate's own subject before anything is
parked.

An event that cannot be applied parks its aggregate: the view keeps the state before that event, and the
record of the failure is stored with it. Later events of the aggregate are ignored while it is parked;
`replay` reads them again from the aggregate's subject.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from time import time, time_ns
from typing import Any

from msgspec.structs import replace

from contracts import streams
from contracts.envelope import RecordedEvent
from projector.fold import EventsMissing, FoldResult, fold
from projector.ports import NO_PARTITIONS, Advances, EventFeed, Store
from projector.projection import Projection
from projector.records import Record, Update
from projector.retry_schedule import RetryPolicy, RetrySchedule

Observer = Callable[[Sequence[Update]], None]

MAX_CACHED_VIEWS = 10_000


class Writer:
    """Writes one projection's views.

    Args:
        projection: the fold from events to views.
        store: the views and checkpoints.
        feed: where an aggregate's events can be read again.
        retries: when a failed event is retried.
        observe: called with every batch of successful updates.
    """

    def __init__(
        self,
        projection: Projection[Any],
        store: Store,
        feed: EventFeed,
        retries: RetryPolicy,
        observe: Observer,
    ) -> None:
        self.schedule = RetrySchedule()
        self._projection = projection
        self._store = store
        self._feed = feed
        self._retries = retries
        self._observe = observe
        self._cache: OrderedDict[str, Record] = OrderedDict()

    def clear_cache(self) -> None:
        """Evict all cached views, before a session whose partitions another projector may have had."""
        self._cache.clear()

    async def apply(
        self,
        events: Iterable[RecordedEvent],
        advances: Advances = NO_PARTITIONS,
        as_of: Mapping[int, int] = NO_PARTITIONS,
    ) -> None:
        """Apply events to their views and advance the checkpoints; return when the store has both.

        Events that a view already includes, and those of parked aggregates, are ignored. An event that cannot
        be applied parks its aggregate.

        Raises:
            BuildSuperseded: another build has begun, or a checkpoint is not as expected.
        """
        pending_events: dict[str, list[RecordedEvent]] = {}
        for event in events:
            pending_events.setdefault(streams.aggregate_id(event.stream), []).append(event)
        new_ids = {view_id for view_id, events in pending_events.items() if events[0].version == 1}
        # Each round writes the views that have no conflict. The checkpoints advance with the last round, so a
        # kill between two rounds repeats the whole batch.
        while True:
            records = await self._load(pending_events, new_ids)
            updates = [
                await self._fold_view(records[view_id], events) for view_id, events in pending_events.items()
            ]
            conflicts = await self._write(
                [update for update in updates if update is not None], advances, as_of
            )
            if not conflicts:
                return
            # A view in `new_ids` that conflicts exists after all, so the next round has to load it.
            pending_events, new_ids = {view_id: pending_events[view_id] for view_id in conflicts}, set()

    async def replay(self, view_id: str, stream: str) -> None:
        """Retry a parked aggregate with the events of its own subject; unpark it if they can be applied."""
        record = (await self._store.load([view_id]))[view_id]
        self._evict([view_id])
        if record.parked is not None and not await self._retry_parked(record, stream):
            return
        self.schedule.remove(view_id)
        # Events that arrived between the reading of the subject and the unparking were ignored, and the
        # checkpoint has passed them. So the subject is read once more. The aggregate stays listed until then:
        # if this process dies first, the next one repeats this part.
        await self.apply(await self._feed.read_events(stream))
        await self._store.unlist_parked(view_id)

    async def _retry_parked(self, record: Record, stream: str) -> bool:
        """Apply the later events to a parked view; return whether it is unparked now."""
        started = time_ns()
        result = fold(self._projection, record, await self._feed.read_events(stream))
        update = self._create_update(record, result, stream, started)
        unparked = replace(result.record, parked=None, revision=record.revision + 1)
        update = update or Update(record, unparked, None, (), None, started)
        return not await self._write([update]) and update.after.parked is None

    async def _fold_view(self, record: Record, events: Sequence[RecordedEvent]) -> Update | None:
        """Return the update of a view by these events; None if it does not change."""
        if record.parked is not None:
            return None
        started, stream = time_ns(), events[0].stream
        result = fold(self._projection, record, events)
        # Publishers may overtake each other, and a view may be older than the checkpoint (deleted by hand,
        # or restored). The aggregate's own subject has all events, including those missing here.
        if isinstance(result.error, EventsMissing):
            result = fold(self._projection, record, [*await self._feed.read_events(stream), *events])
        return self._create_update(record, result, stream, started)

    def _create_update(
        self, before: Record, result: FoldResult, stream: str, started_ns: int
    ) -> Update | None:
        after = result.record
        if result.error is not None:
            now = int(time() * 1000)
            parked = self._retries.park(stream, after.version + 1, result.error, before.parked, now)
            after = replace(after, parked=parked, revision=before.revision + 1)
        elif result.content is None:
            return None
        return Update(before, after, result.content, result.applied_events, result.failed_event, started_ns)

    async def _load(self, view_ids: Collection[str], new_ids: Set[str] = frozenset()) -> Mapping[str, Record]:
        """Return views from the cache, the missing ones from the store.

        Args:
            view_ids: the views.
            new_ids: views assumed not to exist, because their first event is in the batch. They are not
                loaded; if the assumption is wrong, the write reports a conflict.
        """
        records = {view_id: self._cache[view_id] for view_id in view_ids if view_id in self._cache}
        for view_id in new_ids - records.keys():
            records[view_id] = Record(view_id, self._projection.view.message())
        if missing_ids := [view_id for view_id in view_ids if view_id not in records]:
            loaded_records = await self._store.load(missing_ids)
            self._cache_records(loaded_records.values())
            records.update(loaded_records)
        return records

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
        self._evict(conflicts)
        written_updates = [update for update in updates if update.after.id not in conflicts]
        self._cache_records(update.after for update in written_updates)
        for update in written_updates:
            if update.after.parked is not None:
                self.schedule.add(update.after.id, update.after.parked)
        self._observe(written_updates)
        return conflicts

    def _cache_records(self, records: Iterable[Record]) -> None:
        """Cache views, and evict the least recently used ones."""
        for record in records:
            if record.parked is None:
                self._cache[record.id] = record
                self._cache.move_to_end(record.id)
            else:  # another process may unpark it at any time, and only the store shows that
                self._cache.pop(record.id, None)
        while len(self._cache) > MAX_CACHED_VIEWS:
            self._cache.popitem(last=False)

    def _evict(self, view_ids: Iterable[str]) -> None:
        for view_id in view_ids:
            self._cache.pop(view_id, None)
