"""Which of the events at hand a view can take next, and what it is after them. Pure."""

from collections.abc import Sequence
from typing import Any

import msgspec

from contracts.envelope import RecordedEvent
from projector.projection import Projection, Rendered
from projector.records import Record


class EventsMissing(Exception):
    """Events are there, but not the one that the view needs next."""


class Folded(msgspec.Struct, frozen=True):
    """What became of a view: the same record if nothing could be applied."""

    record: Record
    content: Rendered[Any] | None
    applied: Sequence[RecordedEvent]
    failed: RecordedEvent | None = None
    """The event that stopped the fold; None where all were applied, or had been applied before."""
    error: Exception | None = None


def fold(projection: Projection[Any], record: Record, events: Sequence[RecordedEvent]) -> Folded:
    """Apply the events that follow a view's version, whatever order and however often they come in.

    Returns:
        The view after the last event that could be applied. `error` is EventsMissing where the next version
        is not among the events though later ones are, else what applying an event failed with.
    """
    run, beyond = _successors(record.version, events)
    content, done, error = projection.fold(record.message, run) if run else (None, 0, None)
    after = _after(record, run[done - 1].version, content) if content else record
    if error is not None:
        return Folded(after, content, run[:done], run[done], error)
    if beyond is not None:
        missing = EventsMissing(f"event {after.version + 1} is missing, event {beyond.version} is there")
        return Folded(after, content, run, beyond, missing)
    return Folded(after, content, run)


def _successors(
    version: int, events: Sequence[RecordedEvent]
) -> tuple[list[RecordedEvent], RecordedEvent | None]:
    """Return the events that follow a version one by one, and the first one beyond a gap."""
    run: list[RecordedEvent] = []
    for event in sorted(events, key=lambda event: event.version):
        if event.version == version + 1:
            run.append(event)
            version += 1
        elif event.version > version:
            return run, event
    return run, None


def _after(record: Record, version: int, content: Rendered[Any]) -> Record:
    return Record(record.id, content.message, version, record.revision + 1, content.entries)
