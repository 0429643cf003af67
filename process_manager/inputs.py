"""The inputs that a group is made of: what each needs, and how it changes the instances. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Generic, TypeVar

from contracts import streams
from contracts.envelope import RecordedEvent
from process_manager.delivery import Assignment, Delivery, Progress, Slice, assign
from process_manager.due_work import Checkpoint, DueStep, DueTimer, Feed
from process_manager.instance import Instance, RowUnreadable
from process_manager.saga import AbortRequested, RetryRequested, Saga, StepRejected, StepSucceeded, TimerFired
from process_manager.step_client import StepReply
from process_manager.unit_of_work import Key, OperatorAction, UnitOfWork

R = TypeVar("R", covariant=True)


class UnknownSaga(Exception):
    """There is no saga of this name, or no instance of this id."""


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

    @cached_property
    def assigned(self) -> Assignment:
        return assign(self.saga, self.beginning, self.events)

    @property
    def instances(self) -> Collection[Key]:
        return [(self.saga.name, id_) for id_ in self.assigned.instances]

    @property
    def streams(self) -> Collection[Key]:
        return [(self.saga.name, stream) for stream in self.assigned.streams]

    @property
    def feed(self) -> Feed | None:
        return self.source

    @property
    def size(self) -> int:
        return len(self.events)

    @property
    def is_atomic(self) -> bool:
        return False

    def apply(self, unit: UnitOfWork) -> Collection[str]:
        unit.advance_checkpoint(self.source, self.old, self.new)
        return Delivery(unit, self.saga, self.source, self.beginning, self.assigned).deliver()


@dataclass(frozen=True)
class ParkedSlice(QueuedInput[Progress]):
    """Events of a parked stream."""

    saga: Saga[Any]
    beginning: datetime | None
    source: Feed
    slice: Slice

    @cached_property
    def assigned(self) -> Assignment:
        return assign(self.saga, self.beginning, self.slice.events)

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
        delivery = Delivery(unit, self.saga, self.source, self.beginning, self.assigned)
        return delivery.deliver_slice(self.slice)


@dataclass(frozen=True)
class _OfInstance(QueuedInput[R]):
    """An input of one instance."""

    saga: str
    id: str

    @property
    def instances(self) -> Collection[Key]:
        return [(self.saga, self.id)]

    def find(self, unit: UnitOfWork) -> Instance:
        return unit.find(self.saga, self.id)

    def find_existing(self, unit: UnitOfWork) -> Instance:
        """Return the instance.

        Raises:
            UnknownSaga: there is none of this id.
            RowUnreadable: this release cannot read it.
        """
        instance = self.find(unit)
        if not instance.exists:
            raise UnknownSaga(f"there is no {self.saga} {self.id}")
        if instance.unreadable:
            raise RowUnreadable(f"{self.saga} {self.id}: {instance.unreadable}")
        return instance


@dataclass(frozen=True)
class Reply(_OfInstance[None]):
    """The reply to a step. It changes nothing if the step has an outcome."""

    step: DueStep
    reply: StepReply

    def apply(self, unit: UnitOfWork) -> None:
        instance, step, reply = self.find(unit), self.step, self.reply
        if (step.step, step.attempt) not in instance.pending:
            return
        if reply.reason:
            instance.react_to(StepRejected(step.step, reply.reason, reply.details, unit.now))
        else:
            instance.react_to(StepSucceeded(step.step, reply.response, unit.now))
        unit.record_outcome(instance, step, reply.reason or "OK")
        unit.save(instance)


@dataclass(frozen=True)
class TimerFiring(_OfInstance[None]):
    """A timer that fires. It changes nothing if the timer was removed, stopped or set to another time."""

    due: DueTimer

    @property
    def timer(self) -> DueTimer | None:
        return self.due

    def apply(self, unit: UnitOfWork) -> None:
        instance = self.find(unit)
        if not unit.has_timer(instance, self.due):
            return
        instance.react_to(TimerFired(self.due.name, unit.now))
        unit.remove_timer(instance, self.due)
        unit.save(instance)


@dataclass(frozen=True)
class Retry(_OfInstance[Instance]):
    """An operator's retry, once the events that the instance failed on were delivered again."""

    operator: str

    def apply(self, unit: UnitOfWork) -> Instance:
        instance = self.find_existing(unit)
        if not instance.failure:
            instance.react_to(RetryRequested(unit.now))
        unit.actions.append((instance, OperatorAction("retry", "", self.operator)))
        unit.save(instance)
        unit.hurried.add(instance.key)
        return instance


@dataclass(frozen=True)
class Cancellation(_OfInstance[Instance]):
    """An operator's abort."""

    reason: str
    operator: str

    def apply(self, unit: UnitOfWork) -> Instance:
        instance = self.find_existing(unit)
        instance.react_to(AbortRequested(self.reason, unit.now))
        unit.actions.append((instance, OperatorAction("abort", self.reason, self.operator)))
        unit.save(instance)
        return instance


@dataclass(frozen=True)
class RowInspection(_OfInstance[Instance]):
    """Marks an instance whose row cannot be read, or one that can be read again."""

    def apply(self, unit: UnitOfWork) -> Instance:
        instance = self.find(unit)
        unit.save(instance)
        return instance


@dataclass(frozen=True)
class ParkFailed(_OfInstance[Sequence[tuple[Feed, str]]]):
    """Parks the streams with a failed input of an instance; the result are these and its own stream."""

    @property
    def runs_alone(self) -> bool:
        return True  # its row alone tells which streams it needs

    def apply(self, unit: UnitOfWork) -> Sequence[tuple[Feed, str]]:
        instance = self.find_existing(unit)
        parked = []
        for stream in filter(None, (instance.own_stream, *instance.other_streams)):
            partition = streams.partition(streams.aggregate_id(stream))
            feed = Feed(self.saga, streams.stream_type(stream), partition)
            position = instance.find_position(stream)
            if position.failed_input:
                unit.park_behind(feed, stream, position.version + 1, 0)
            if position.failed_input or stream == instance.own_stream:
                parked.append((feed, stream))
        return parked
