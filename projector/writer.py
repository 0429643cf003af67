"""From events to views: load, fold, write by compare-and-set with all that is derived; and trying again.

Whoever loses a compare-and-set drops what it knew of the view, loads it and folds again, so redelivery,
reordering and other projectors change how often something is done, never what comes out.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from time import time, time_ns
from typing import Any

from msgspec.structs import replace

from contracts import streams
from contracts.envelope import RecordedEvent
from projector.fold import EventsMissing, Folded, fold
from projector.ports import NO_PARTITIONS, Advances, Feed, Store
from projector.projection import Projection
from projector.records import Record, Update
from projector.retry_schedule import RetryPolicy, RetrySchedule

Observe = Callable[[Sequence[Update]], None]

CACHED = 10_000
"""How many views are kept in memory."""


class Writer:
    """Keeps one projection's views in the store.

    Args:
        projection: what to make of the events.
        store: where the views are.
        feed: where an aggregate's events can be read again.
        retries: when to try again what failed.
        observe: is told of every write that the store has taken.
    """

    def __init__(
        self, projection: Projection[Any], store: Store, feed: Feed, retries: RetryPolicy, observe: Observe
    ) -> None:
        self.schedule = RetrySchedule()
        self._projection = projection
        self._store = store
        self._feed = feed
        self._retries = retries
        self._observe = observe
        self._cache: OrderedDict[str, Record] = OrderedDict()

    def forget(self) -> None:
        """Trust no view that is known; for when others may have written meanwhile."""
        self._cache.clear()

    async def apply(
        self,
        events: Iterable[RecordedEvent],
        advances: Advances = NO_PARTITIONS,
        as_of: Mapping[int, int] = NO_PARTITIONS,
    ) -> None:
        """Bring the views of these events up to them, and progress with them; return once the store has both.

        Events that were applied before, and those of parked aggregates, are passed over. One that cannot be
        applied parks its aggregate.

        Raises:
            Superseded: another filling has begun, or progress is not what it was.
        """
        todo: dict[str, list[RecordedEvent]] = {}
        for event in events:
            todo.setdefault(streams.aggregate_id(event.stream), []).append(event)
        new = {view_id for view_id, events in todo.items() if events[0].version == 1}
        while True:
            records = await self._load(todo, new)
            folded = [await self._update(records[view_id], events) for view_id, events in todo.items()]
            lost = await self._write([update for update in folded if update is not None], advances, as_of)
            if not lost:
                return
            todo, new = {view_id: todo[view_id] for view_id in lost}, set()

    async def replay(self, view_id: str, stream: str) -> None:
        """Try to apply what a parked aggregate lacks, from its own subject; if that works, unpark it.

        Events that came while it was parked were passed over, so its subject is read once more after it was
        unparked. It stays on the list until then: should this process die in between, another repeats it.
        """
        record = (await self._store.load([view_id]))[view_id]
        self._cache.pop(view_id, None)
        if record.parked is not None and not await self._retry(record, stream):
            return
        self.schedule.forget(view_id)
        await self.apply(await self._feed.history(stream))
        await self._store.unlist(view_id)

    async def _retry(self, record: Record, stream: str) -> bool:
        """Fold a parked view on; return whether it is unparked now."""
        started = time_ns()
        folded = fold(self._projection, record, await self._feed.history(stream))
        update = self._as_update(record, folded, stream, started)
        unparked = replace(folded.record, parked=None, revision=record.revision + 1)
        update = update or Update(record, unparked, None, (), None, started)
        return not await self._write([update]) and update.after.parked is None

    async def _update(self, record: Record, events: Sequence[RecordedEvent]) -> Update | None:
        """Return what the events make of a view; None where it stays as it is."""
        if record.parked is not None:
            return None
        started, stream = time_ns(), events[0].stream
        folded = fold(self._projection, record, events)
        if isinstance(folded.error, EventsMissing):
            folded = fold(self._projection, record, [*await self._feed.history(stream), *events])
        return self._as_update(record, folded, stream, started)

    def _as_update(self, before: Record, folded: Folded, stream: str, started_ns: int) -> Update | None:
        after = folded.record
        if folded.error is not None:
            now = int(time() * 1000)
            parked = self._retries.park(stream, after.version + 1, folded.error, before.parked, now)
            after = replace(after, parked=parked, revision=before.revision + 1)
        elif folded.content is None:
            return None
        return Update(before, after, folded.content, folded.applied, folded.failed, started_ns)

    async def _load(self, view_ids: Collection[str], new: Set[str] = frozenset()) -> Mapping[str, Record]:
        """Return views, from memory where they are there.

        Args:
            view_ids: which.
            new: those that need not be looked for, since most likely they are not there yet.
        """
        known = {view_id: self._cache[view_id] for view_id in view_ids if view_id in self._cache}
        for view_id in new - known.keys():
            known[view_id] = Record(view_id, self._projection.view.message())
        if lacking := [view_id for view_id in view_ids if view_id not in known]:
            loaded = await self._store.load(lacking)
            self._keep(loaded.values())
            known.update(loaded)
        return known

    async def _write(
        self,
        updates: Sequence[Update],
        advances: Advances = NO_PARTITIONS,
        as_of: Mapping[int, int] = NO_PARTITIONS,
    ) -> set[str]:
        if not updates:
            if advances:
                await self._store.advance(advances, as_of)
            return set()
        lost = await self._store.write(updates, advances, as_of)
        self._drop(lost)
        won = [update for update in updates if update.after.id not in lost]
        self._keep(update.after for update in won)
        for update in won:
            if update.after.parked is not None:
                self.schedule.remember(update.after.id, update.after.parked)
        self._observe(won)
        return lost

    def _keep(self, records: Iterable[Record]) -> None:
        """Remember the views used last, but no parked ones, since an operator may unpark them."""
        for record in records:
            if record.parked is None:
                self._cache[record.id] = record
                self._cache.move_to_end(record.id)
            else:
                self._cache.pop(record.id, None)
        while len(self._cache) > CACHED:
            self._cache.popitem(last=False)

    def _drop(self, view_ids: Iterable[str]) -> None:
        for view_id in view_ids:
            self._cache.pop(view_id, None)
