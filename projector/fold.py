"""The fold of one view: selects the events that follow the view's version and applies them. Pure."""

from collections.abc import Sequence
from math import inf
from typing import Any

import msgspec

from contracts.envelope import RecordedEvent
from projector.projection import Projection, RenderedView
from projector.records import Record


class EventsMissing(Exception):
    """The event that the view needs next is missing, and later events are present."""


class FoldResult(msgspec.Struct, frozen=True):
    """The view after the fold; `record` is the given one if no event could be applied."""

    record: Record
    content: RenderedView[Any] | None
    """None if no event could be applied."""
    applied_events: Sequence[RecordedEvent]
    failed_event: RecordedEvent | None = None
    """The event that stopped the fold; None if every event was applied, in this fold or an earlier one."""
    error: Exception | None = None


def fold(
    projection: Projection[Any],
    record: Record,
    events: Sequence[RecordedEvent],
    deadline: float = inf,
    skipped: frozenset[int] = frozenset(),
) -> FoldResult:
    """Apply the events that follow a view's version. Their order and repetitions do not matter.

    Args:
        projection: the projection.
        record: the view.
        events: of its stream.
        deadline: as `Projection.fold`.
        skipped: as `Projection.fold`.

    Returns:
        The view after the last event that could be applied. `error` is `EventsMissing` if the next version is
        missing and later ones are present, otherwise the exception of the event that failed.

    Raises:
        OutOfTime: as `Projection.fold`.
    """
    run, after_gap = _split_at_gap(record.version, events)
    content, count, error = (
        projection.fold(record.message, run, deadline, skipped) if run else (None, 0, None)
    )
    after = _create_record(record, run[count - 1].version, content) if content else record
    if error is not None:
        return FoldResult(after, content, run[:count], run[count], error)
    if after_gap is not None:
        missing = EventsMissing(f"event {after.version + 1} is missing before event {after_gap.version}")
        return FoldResult(after, content, run, after_gap, missing)
    return FoldResult(after, content, run)


def _split_at_gap(
    version: int, events: Sequence[RecordedEvent]
) -> tuple[list[RecordedEvent], RecordedEvent | None]:
    """Return the events that follow a version without a gap, and the first event after the gap."""
    run: list[RecordedEvent] = []
    for event in sorted(events, key=lambda event: event.version):
        if event.version == version + 1:
            run.append(event)
            version += 1
        elif event.version > version:
            return run, event
    return run, None


def _create_record(before: Record, version: int, content: RenderedView[Any]) -> Record:
    return Record(before.id, content.message, version, before.revision + 1, content.entries)
