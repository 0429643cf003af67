"""Inputs that are committed together or not at all: the rows that they need, and their changes. Pure.

How it works:

- A unit holds the inputs of one group that share an instance, a stream or a feed (`divide`). Inputs that
  share nothing are in different units, so that one that loses a race, or fails, leaves the others alone.
- `UnitOfWork` builds instances from the rows that were read, and inputs change them one after the other, in
  their order of arrival.
- `write_statement.py` writes the changes only if every row that was read is as it was.
- The timers of an instance that lacks an event are stopped: when it fails on one, when its row cannot be
  read, and while its own stream is parked. They fire later by as long as they were stopped.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from process_manager.groups.instance import Instance
from process_manager.postgres import rows
from process_manager.postgres.due_work import Checkpoint, CheckpointConflict, DueStep, DueTimer, Feed
from process_manager.postgres.stored_rows import Key, Needs, ParkedStream, StoredRows
from process_manager.saga import Saga

N = TypeVar("N", bound=Needs)


def divide(inputs: Sequence[N]) -> list[list[N]]:
    """Return the inputs in units: those that share an instance, a stream or a feed are in one of them."""
    leaders = list(range(len(inputs)))
    first: dict[Hashable, int] = {}

    def find(index: int) -> int:
        while leaders[index] != index:
            leaders[index] = leaders[leaders[index]]
            index = leaders[index]
        return index

    for index, each in enumerate(inputs):
        for resource in (*each.instances, *each.streams, each.feed):
            if resource is not None:
                leaders[find(index)] = find(first.setdefault(resource, index))
    units: dict[int, list[N]] = {}
    for index, each in enumerate(inputs):
        units.setdefault(find(index), []).append(each)
    return list(units.values())


@dataclass(frozen=True)
class OperatorAction:
    """An operator's action on an instance, for the record."""

    action: str
    reason: str
    operator: str


@dataclass
class UnitOfWork:
    """The instances and parked streams of some inputs, in memory.

    Args:
        sagas: the sagas by name.
        rows: the rows that were read.
    """

    sagas: Mapping[str, Saga[Any]]
    rows: StoredRows
    instances: dict[Key, Instance] = field(default_factory=dict)
    """Those that an input has needed."""
    saved: dict[Key, Instance] = field(default_factory=dict)
    """Those to write."""
    parked: dict[Key, ParkedStream | None] = field(default_factory=dict)
    """Those that an input has needed; None for a stream that is not parked."""
    advances: dict[Feed, tuple[Checkpoint, Checkpoint]] = field(default_factory=dict)
    outcomes: list[tuple[DueStep, str]] = field(default_factory=list)
    fired: list[DueTimer] = field(default_factory=list)
    actions: list[tuple[Instance, OperatorAction]] = field(default_factory=list)
    hurried: set[Key] = field(default_factory=set)
    """The instances whose postponed steps and timers are due at once."""

    @property
    def now(self) -> datetime:
        return self.rows.now

    def find(self, saga: str, id_: str) -> Instance:
        """Return an instance, a new one if there is none."""
        if (saga, id_) not in self.instances:
            self.instances[saga, id_] = rows.from_row(self.sagas[saga], id_, self.rows.instances[saga, id_])
        return self.instances[saga, id_]

    def save(self, *instances: Instance) -> None:
        """Write these instances, except those that have received no input."""
        for instance in instances:
            if instance.exists:
                self.saved[instance.key] = instance
                if instance.was_unreadable and not instance.unreadable:
                    self.hurried.add(instance.key)

    def advance_checkpoint(self, feed: Feed, old: Checkpoint, new: Checkpoint) -> None:
        """Advance a feed's checkpoint.

        Raises:
            CheckpointConflict: the checkpoint is not at `old`.
        """
        first, last = self.advances.get(feed, (old, old))
        if last != old or self.rows.checkpoints.get(feed, old) != first:
            raise CheckpointConflict(f"another manager has advanced {feed}")
        self.advances[feed] = first, new

    def record_outcome(self, instance: Instance, step: DueStep, outcome: str) -> None:
        instance.pending.discard((step.step, step.attempt))
        self.outcomes.append((step, outcome))

    def has_timer(self, instance: Instance, timer: DueTimer) -> bool:
        """Return whether a timer is still to fire at this time."""
        is_marked = not instance.unreadable or instance.key in self.saved
        is_stopped = is_marked and self.stops(instance)
        return timer in self.rows.timers and timer.name not in instance.timers and not is_stopped

    def remove_timer(self, instance: Instance, timer: DueTimer) -> None:
        instance.timers.setdefault(timer.name, None)
        self.fired.append(timer)

    def stops(self, instance: Instance) -> bool:
        """Return whether the timers of an instance are stopped, since it lacks an event."""
        return bool(instance.failure or instance.unreadable or self.find_parked(instance.own_key))

    def resumes(self, instance: Instance) -> bool:
        """Return whether the timers of an instance were stopped, and go on."""
        was_parked = instance.own_key in self.rows.parked
        was_stopped = instance.was_failing or instance.was_unreadable or was_parked
        return was_stopped and not self.stops(instance)

    def find_parked(self, key: Key) -> ParkedStream | None:
        """Return a parked stream, or None."""
        if key not in self.parked:
            stored = self.rows.parked.get(key)
            self.parked[key] = None if stored is None else ParkedStream(**vars(stored))
        return self.parked[key]

    def park(self, feed: Feed, stream: str, version: int, latest: int, error: str) -> None:
        """Park a stream.

        Args:
            feed: of the stream.
            stream: its name.
            version: of the first event that waits.
            latest: of the latest event that waits; 0 for unknown.
            error: why it waits.
        """
        parked = self.park_behind(feed, stream, version, latest)
        parked.version, parked.error = version, error

    def park_behind(self, feed: Feed, stream: str, version: int, latest: int) -> ParkedStream:
        """Park a stream that has to be read from this version on, or from an earlier one if it is parked."""
        key = feed.saga, stream
        parked = self.find_parked(key)
        if parked is None:
            stored = self.rows.parked.get(key)
            parked = ParkedStream(feed, stream, version, latest, revision=stored.revision if stored else None)
            self.parked[key] = parked
        parked.version, parked.latest = min(parked.version, version), max(parked.latest, latest)
        parked.changed = True
        return parked

    def unpark(self, feed: Feed, stream: str) -> None:
        self.parked[feed.saga, stream] = None

    @property
    def has_changes(self) -> bool:
        parked = any(
            key in self.rows.parked if row is None else row.changed for key, row in self.parked.items()
        )
        return parked or any((self.saved, self.advances, self.outcomes, self.fired, self.actions))
