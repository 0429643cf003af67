"""Folds the views of a batch again whose person was forgotten, all at once.

How it works. The events of such a view may have been opened, here or in an earlier batch, while the key
existed. So they are read from the aggregate's own subject again, which opens them without it, and those
that the view has are folded from the first one. What cannot be done so is left to a replay, which takes
longer: long streams, and views that are archived, unreadable or changed by another projector meanwhile.
"""

import asyncio
from collections.abc import Mapping, Sequence
from time import time_ns
from typing import Any

from msgspec.structs import replace

from contracts.envelope import RecordedEvent
from contracts.forgetting import FORGOTTEN
from projector.fold import fold
from projector.ports import EventFeed, Store
from projector.projection import Projection
from projector.records import Record, Update
from projector.skips import Skips

MAX_EVENTS = 100
"""Events of a stream that is folded here, at most: so many are written at once."""
MAX_READS = 32
"""Streams that are read at once."""
PAGE = 50
"""Views that are folded and written before other work gets its turn."""

Events = Sequence[RecordedEvent]


def is_forgotten(record: Record, events: Events) -> bool:
    """Return whether the person of a view was forgotten by one of the events that the view lacks."""
    return any(event.type == FORGOTTEN and event.version > record.version for event in events)


class ForgottenViews:
    """Folds views of one projection again.

    Args:
        projection: the fold from events to views.
        store: the views.
        feed: where an aggregate's events are read.
        skips: the events to skip.
    """

    def __init__(self, projection: Projection[Any], store: Store, feed: EventFeed, skips: Skips) -> None:
        self._projection = projection
        self._store = store
        self._feed = feed
        self._skips = skips
        self._reads = asyncio.Semaphore(MAX_READS)

    async def refold(
        self, records: Mapping[str, Record], pending: Mapping[str, Events]
    ) -> dict[str, tuple[Record, Events]]:
        """Return the views that were folded again and written, each with its events, read again.

        Args:
            records: the views of a batch.
            pending: the events of the batch, by view.
        """
        chosen = [
            view_id
            for view_id, events in pending.items()
            if is_forgotten(records[view_id], events) and _is_simple(records[view_id], events)
        ]
        done: dict[str, tuple[Record, Events]] = {}
        for at in range(0, len(chosen), PAGE):
            page = chosen[at : at + PAGE]
            read = await asyncio.gather(*(self._read(pending[view_id]) for view_id in page))
            events = {view_id: each for view_id, each in zip(page, read, strict=True) if each}
            done |= await self._write({view_id: records[view_id] for view_id in events}, events)
        return done

    async def _read(self, pending: Events) -> Events:
        """Return all events of a stream, up to the last of these; none if they cannot be read now."""
        last = max(event.version for event in pending)
        async with self._reads:
            try:
                read = await self._feed.open_aggregate(pending[0].stream).read_batch() or ()
            except Exception:  # the replay reports it
                return ()
        events = sorted((event for event in read if event.version <= last), key=lambda each: each.version)
        return events if [event.version for event in events] == list(range(1, last + 1)) else ()

    async def _write(
        self, records: Mapping[str, Record], events: Mapping[str, Events]
    ) -> dict[str, tuple[Record, Events]]:
        updates = [
            update
            for view_id, record in records.items()
            if record.version and (update := self._fold(record, events[view_id])) is not None
        ]
        conflicts = await self._store.write(updates) if updates else set[str]()
        written = {update.after.id: update.after for update in updates if update.after.id not in conflicts}
        new = {view_id: record for view_id, record in records.items() if not record.version}
        return {view_id: (record, events[view_id]) for view_id, record in (written | new).items()}

    def _fold(self, record: Record, events: Events) -> Update | None:
        """Return the write of a view and its history as its first events make them; None if one fails."""
        selected = [event for event in events if event.version <= record.version]
        empty, skipped = Record(record.id, self._projection.view.message()), self._skips.of(events[0].stream)
        result = fold(self._projection, empty, selected, skipped=skipped)
        if result.error is not None or result.content is None:
            return None
        content = replace(result.content, event_contributions=())  # they were counted before
        after = replace(result.record, revision=record.revision + 1)
        return Update(record, after, content, (), None, time_ns(), repairs="view")


def _is_simple(record: Record, events: Events) -> bool:
    is_plain = record.parked is None and not record.archived and not record.error and record.is_hash
    return is_plain and max(event.version for event in events) <= MAX_EVENTS
