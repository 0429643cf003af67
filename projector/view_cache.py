"""The views of one projection that are kept in memory, and loading those that are not."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence, Set

from contracts.envelope import RecordedEvent
from contracts.view_layout import View
from projector.ports import Store
from projector.records import Record

MAX_CACHED_VIEWS = 10_000


class ViewCache:
    """The most recently used views, each as the last fold left it, whether or not it is written.

    Args:
        view: the layout of the views.
        store: has the views that are not cached.
    """

    def __init__(self, view: View, store: Store) -> None:
        self._view = view
        self._store = store
        self._records: OrderedDict[str, Record] = OrderedDict()

    def clear(self) -> None:
        self._records.clear()

    async def load(
        self, pending_events: Mapping[str, Sequence[RecordedEvent]], new_ids: Set[str]
    ) -> Mapping[str, Record]:
        """Return views from the cache, the missing ones from the store.

        Args:
            pending_events: the events that are to be applied, by view.
            new_ids: views assumed not to exist, because their first event is in the batch. They are not
                loaded; if the assumption is wrong, the write reports a conflict.
        """
        records, missing_ids = dict[str, Record](), list[str]()
        for view_id in pending_events:
            if (record := self._records.get(view_id)) is not None:
                records[view_id] = record
            elif view_id in new_ids:
                records[view_id] = Record(view_id, self._view.message())
            else:
                missing_ids.append(view_id)
        if missing_ids:
            loaded_records = await self._load_stored(missing_ids, pending_events)
            self.put(loaded_records.values())
            records.update(loaded_records)
        return records

    async def _load_stored(
        self, view_ids: Sequence[str], pending_events: Mapping[str, Sequence[RecordedEvent]]
    ) -> Mapping[str, Record]:
        """Load views; one whose key has another type becomes a hash without the view."""
        records = await self._store.load(view_ids)
        others = [record.id for record in records.values() if not record.is_hash]
        if not others:
            return records
        for view_id in others:
            first = min(event.version for event in pending_events[view_id])
            await self._store.restore_hash(view_id, first - 1)
        return {**records, **await self._store.load(others)}

    def put(self, records: Iterable[Record]) -> None:
        """Cache views, and evict the least recently used ones."""
        for record in records:
            if record.parked is None:
                self._records[record.id] = record
                self._records.move_to_end(record.id)
            else:  # another process may unpark it at any time, and only the store shows that
                self._records.pop(record.id, None)
        while len(self._records) > MAX_CACHED_VIEWS:
            self._records.popitem(last=False)

    def evict(self, view_ids: Iterable[str]) -> None:
        for view_id in view_ids:
            self._records.pop(view_id, None)
