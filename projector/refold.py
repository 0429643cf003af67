"""The fold of a view from its first event: it is archived, unreadable, or an operator doubts it. Pure.

How it works. The events up to the version that the view had are applied to an empty view. They were applied
before, so their contributions to counters of events stay, and counters of views change by the difference.
Each slice writes its history entries again; the view keeps its state until the last write.
"""

from collections.abc import Sequence
from time import time_ns
from typing import Any

from msgspec.structs import replace

from contracts.envelope import RecordedEvent
from projector.fold import EventsMissing, fold
from projector.projection import Projection, RenderedView
from projector.records import Record, Update

UNLIMITED = -1


class Refold:
    """The fold of one view, slice by slice.

    Args:
        projection: the fold from events to views.
        record: the view as it is stored.
        skipped: versions that change nothing.
    """

    def __init__(
        self, projection: Projection[Any], record: Record, skipped: frozenset[int] = frozenset()
    ) -> None:
        self._skipped = skipped
        self._projection = projection
        self.record = record
        self._folded = Record(record.id, projection.view.message())
        self._content: RenderedView[Any] | None = None
        parked = record.parked
        # Without a readable version the record of the failure tells which event was the next one. Version 0
        # in an operator's record means that all events were applied.
        self._limit = record.version or (parked.version - 1 if parked else 0)

    @staticmethod
    def is_needed(record: Record) -> bool:
        """Return whether a view is folded again: an archived one only once something has parked it."""
        parked = record.parked
        return bool(record.error) or (parked is not None and (parked.refold or record.archived))

    @property
    def version(self) -> int:
        """The version of the last event that was folded."""
        return self._folded.version

    @property
    def is_complete(self) -> bool:
        return self._limit != UNLIMITED and self.version >= self._limit

    @property
    def lacks_events(self) -> bool:
        """Whether events are known to exist that were not folded."""
        return self._limit != UNLIMITED and not self.is_complete

    def fold(self, events: Sequence[RecordedEvent]) -> Update | None:
        """Fold a slice of events; return the write of their history entries, None if there are none.

        Raises:
            Exception: an event is missing or cannot be applied.
        """
        started = time_ns()
        selected = [event for event in events if self._limit == UNLIMITED or event.version <= self._limit]
        result = fold(self._projection, self._folded, selected or events, skipped=self._skipped)
        if result.error is not None or not selected:
            raise result.error or EventsMissing(f"event {self.version + 1} is missing")
        self._folded, self._content = result.record, result.content
        if self._content is None or not self._content.history_entries:
            return None
        after = replace(self.record, revision=self.record.revision + 1)
        return Update(self.record, after, self._content, (), None, started, repairs="history")

    def finish(self) -> Update | None:
        """Return the write of the folded view; None if it has no event."""
        if self._content is None:
            return None
        content = replace(self._content, history_entries=(), event_contributions=())
        after = replace(self.empty(), message=content.message, version=self.version, entries=content.entries)
        after = replace(after, revision=self.record.revision + 1)
        return Update(self.record, after, content, (), None, time_ns(), repairs="view")

    def empty(self) -> Record:
        """Return the stored record as one of a readable view, still without its content."""
        parked = self.record.parked
        if parked is not None:
            parked = replace(parked, version=self.version + 1, refold=False)
        return replace(
            self.record, message=self._folded.message, entries=(), error="", archived=False, parked=parked
        )
