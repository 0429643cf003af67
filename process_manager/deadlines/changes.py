"""The changes of deadlines that follow from a feed's events. Pure.

How it works:

- A stream has a deadline while its last event is its first one, the event that sets the deadline. So a row
  exists if and only if the next event has version 2, and gaps show without any further record: the event of
  version 2 finds a row to remove, and a later one finds none.
- Events that this cannot judge, and those of streams whose rows contradict them, are for the ordinary way of
  sagas, which keeps an instance with a position and reads missing events: events of unknown types, those that
  cannot be decoded, and those that do not follow each other.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from contracts import streams
from contracts.envelope import RecordedEvent
from contracts.event_types import EventTypes
from process_manager.saga import Deadline, Saga

Key = tuple[str, str]
"""The saga and the id of an instance."""


@dataclass(frozen=True)
class DeadlineSaga:
    """A saga whose instances begin at a deadline."""

    saga: Saga[Any]
    deadline: Deadline[Any]

    @property
    def events(self) -> EventTypes:
        return self.saga.subscribes_to[0].events


@dataclass(frozen=True, slots=True)
class NewDeadline:
    """A deadline to watch."""

    saga: str
    id: str
    partition: int
    due_at: datetime
    correlation_id: str
    traceparent: str | None


@dataclass(frozen=True)
class DeadlineChanges:
    """The changes of the deadlines of some streams."""

    begun: list[NewDeadline] = field(default_factory=list)
    ended: list[Key] = field(default_factory=list)
    """Those whose rows must exist."""
    passed: list[Key] = field(default_factory=list)
    """Those that began and ended with these events; a redelivery may have left their rows."""
    over: list[Key] = field(default_factory=list)
    """Those that ended before; no row must exist."""
    unclear: list[Key] = field(default_factory=list)
    """Those that cannot be judged."""

    @property
    def keys(self) -> Collection[Key]:
        """All of them but those that cannot be judged."""
        begun = [(deadline.saga, deadline.id) for deadline in self.begun]
        return [*begun, *self.ended, *self.passed, *self.over]

    def mark_begun_unclear(self) -> None:
        """Count the streams of new deadlines among those that cannot be judged."""
        self.unclear.extend((each.saga, each.id) for each in self.begun)
        self.begun.clear()

    def add(self, other: "DeadlineChanges", without: Collection[Key] = ()) -> None:
        """Add other changes, except those of some streams."""
        self.begun.extend(each for each in other.begun if (each.saga, each.id) not in without)
        for own, added in (
            (self.ended, other.ended),
            (self.passed, other.passed),
            (self.over, other.over),
            (self.unclear, other.unclear),
        ):
            own.extend(key for key in added if key not in without)


def find_changes(saga: DeadlineSaga, events: Iterable[RecordedEvent]) -> DeadlineChanges:
    """Return the changes that follow from events of a saga with deadlines, in the order of their streams."""
    by_stream: dict[str, list[RecordedEvent]] = {}
    for event in events:
        by_stream.setdefault(event.stream, []).append(event)
    changes = DeadlineChanges()
    for stream, own_events in by_stream.items():
        key, first = (saga.saga.name, streams.aggregate_id(stream)), own_events[0].version
        if not _are_clear(saga, own_events):
            changes.unclear.append(key)
        elif first > 1:
            (changes.ended if first == 2 else changes.over).append(key)
        elif len(own_events) > 1:
            changes.passed.append(key)
        elif deadline := _read_deadline(saga, own_events[0]):
            changes.begun.append(deadline)
        else:
            changes.unclear.append(key)
    return changes


def _are_clear(saga: DeadlineSaga, events: Sequence[RecordedEvent]) -> bool:
    """Return whether events follow each other, all are known, and the first one alone sets a deadline."""
    return all(
        event.version == number
        and event.type in saga.events
        and (saga.events.newest(event.type) is saga.deadline.set_by) == (number == 1)
        for number, event in enumerate(events, events[0].version)
    )


def _read_deadline(saga: DeadlineSaga, event: RecordedEvent) -> NewDeadline | None:
    """Return the deadline that an event sets; None if it cannot be read."""
    try:
        due_at = saga.deadline.find(saga.events.decode(event))
        if due_at.utcoffset() is None:
            return None
        due_at = due_at.astimezone(UTC)  # fails on times that PostgreSQL cannot get
    except Exception:  # the instance that the ordinary way creates tells the error
        return None
    id_, metadata = streams.aggregate_id(event.stream), event.metadata
    correlation_id, traceparent = metadata.get("correlation_id", ""), metadata.get("traceparent")
    return NewDeadline(saga.saga.name, id_, streams.partition(id_), due_at, correlation_id, traceparent)


def add_streams(sagas: Mapping[str, DeadlineSaga], keys: Iterable[Key]) -> list[tuple[str, str, str]]:
    """Return the keys of instances, each with the name of its own stream."""
    return [(saga, id_, streams.stream_name(sagas[saga].saga.own_type, id_)) for saga, id_ in keys]
