"""Inputs that may share a group: what each needs, and how it changes the instances. Events of feeds. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Generic, TypeVar

from contracts import streams
from contracts.envelope import RecordedEvent
from process_manager.groups.assignment import Assignment, Skipped, assign
from process_manager.groups.delivery import Delivery, Progress, Slice
from process_manager.groups.unit_of_work import UnitOfWork
from process_manager.postgres.due_work import Checkpoint, DueTimer, Feed
from process_manager.postgres.stored_rows import Key
from process_manager.saga import Saga

MAX_LOST_RACES = 40
"""Times that an input joins a later group, because another transaction has locked or changed its rows."""
MAX_LOST_RACES_OF_EVENTS = 10
"""The same for events: a feed that fails goes on by itself, and delays no other one any more."""
MAX_LOST_RACES_OF_TIMERS = 4
"""The same for timers, which rest after that, and leave their places to others."""

R = TypeVar("R", covariant=True)


class QueuedInput(Generic[R]):
    """An input, or several of one feed, with the result R."""

    @property
    def instances(self) -> Collection[Key]:
        """The instances that it may change."""
        return ()

    @property
    def streams(self) -> Collection[Key]:
        """The streams whose parking it may change."""
        return ()

    @property
    def feed(self) -> Feed | None:
        """The feed whose checkpoint it advances."""
        return None

    @property
    def timer(self) -> DueTimer | None:
        """The timer that it fires."""
        return None

    def accepts(self, known: Mapping[Key, Any]) -> bool:
        """Return whether these rows of its instances, as this process has written them, are enough.

        If they are outdated, then `apply` must change something, so that the comparison of rows shows it.
        """
        return False

    @property
    def size(self) -> int:
        """The number of inputs."""
        return 1

    @property
    def runs_alone(self) -> bool:
        """Whether it shares its transaction with no other input."""
        return False

    @property
    def is_atomic(self) -> bool:
        """Whether `apply` changes nothing when it raises."""
        return True

    @property
    def max_lost_races(self) -> int:
        """The number of races that it may lose before it fails."""
        return MAX_LOST_RACES

    def apply(self, unit: UnitOfWork) -> R:
        """Change the instances, and return the result.

        Raises:
            Exception: it failed.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class EventBatch(QueuedInput[Collection[str]]):
    """Events of a feed between two checkpoints; the result are the streams of these that are parked."""

    saga: Saga[Any]
    beginning: datetime | None
    source: Feed
    events: Sequence[RecordedEvent]
    old: Checkpoint
    new: Checkpoint
    refused: Mapping[str, str] = field(default_factory=dict)
    """By instance whose reaction PostgreSQL refuses: the error."""
    skipped: Skipped = field(default_factory=dict)

    @cached_property
    def assigned(self) -> Assignment:
        return assign(self.saga, self.beginning, self.events, self.skipped)

    @property
    def instances(self) -> Collection[Key]:
        return [(self.saga.name, id_) for id_ in self.assigned.instances]

    @property
    def streams(self) -> Collection[Key]:
        return [(self.saga.name, stream) for stream in self.assigned.streams]

    @property
    def feed(self) -> Feed | None:
        return self.source

    def accepts(self, known: Mapping[Key, Any]) -> bool:
        return True

    @property
    def size(self) -> int:
        return len(self.events)

    @property
    def is_atomic(self) -> bool:
        return False

    @property
    def max_lost_races(self) -> int:
        return MAX_LOST_RACES_OF_EVENTS

    def apply(self, unit: UnitOfWork) -> Collection[str]:
        unit.advance_checkpoint(self.source, self.old, self.new)
        delivery = Delivery(
            unit, self.saga, self.source, self.beginning, self.assigned, self.refused, self.skipped
        )
        return delivery.deliver()


@dataclass(frozen=True)
class ParkedSlice(QueuedInput[Progress]):
    """Events of a parked stream."""

    saga: Saga[Any]
    beginning: datetime | None
    source: Feed
    slice: Slice
    refused: Mapping[str, str] = field(default_factory=dict)
    """By instance whose reaction PostgreSQL refuses: the error."""
    skipped: Skipped = field(default_factory=dict)

    @cached_property
    def assigned(self) -> Assignment:
        return assign(self.saga, self.beginning, self.slice.events, self.skipped)

    @property
    def instances(self) -> Collection[Key]:
        ids = set(self.assigned.instances)
        if self.source.stream_type == self.saga.own_type:
            ids.add(streams.aggregate_id(self.slice.stream))
        return [(self.saga.name, id_) for id_ in ids]

    @property
    def streams(self) -> Collection[Key]:
        return [(self.saga.name, self.slice.stream)]

    @property
    def size(self) -> int:
        return len(self.slice.events)

    @property
    def is_atomic(self) -> bool:
        return False

    def apply(self, unit: UnitOfWork) -> Progress:
        delivery = Delivery(
            unit, self.saga, self.source, self.beginning, self.assigned, self.refused, self.skipped
        )
        return delivery.deliver_slice(self.slice)
