"""Inputs of one instance: replies, timers and operators' actions. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contracts import streams
from process_manager.dispatch.step_client import StepReply
from process_manager.groups.inputs import MAX_LOST_RACES_OF_TIMERS, QueuedInput, R
from process_manager.groups.instance import Instance, RowUnreadable
from process_manager.groups.unit_of_work import OperatorAction, UnitOfWork
from process_manager.postgres.due_work import DueStep, DueTimer, Feed
from process_manager.postgres.stored_rows import Key
from process_manager.postgres.stored_values import to_text
from process_manager.saga import (
    AbortRequested,
    RetryRequested,
    RowTakenOver,
    StepRejected,
    StepSucceeded,
    TimerFired,
)


class UnknownSaga(Exception):
    """There is no saga of this name, or no instance of this id."""


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

    def accepts(self, known: Mapping[Key, Any]) -> bool:
        row = known[self.saga, self.id]
        return (self.step.step, self.step.attempt, True) in zip(
            row["steps"], row["attempts"], row["pending"], strict=True
        )

    def apply(self, unit: UnitOfWork) -> None:
        instance, step, reply = self.find(unit), self.step, self.reply
        if (step.step, step.attempt) not in instance.pending:
            return
        if reply.reason:
            instance.react_to(StepRejected(step.step, reply.reason, reply.details, unit.now))
        else:
            instance.react_to(StepSucceeded(step.step, reply.response, unit.now))
        unit.record_outcome(instance, step, to_text(reply.reason) or "OK")
        unit.save(instance)


@dataclass(frozen=True)
class TimerFiring(_OfInstance[None]):
    """A timer that fires. It changes nothing if the timer was removed, stopped or set to another time."""

    due: DueTimer

    @property
    def timer(self) -> DueTimer | None:
        return self.due

    @property
    def max_lost_races(self) -> int:
        return MAX_LOST_RACES_OF_TIMERS

    def apply(self, unit: UnitOfWork) -> None:
        instance = self.find(unit)
        if not unit.has_timer(instance, self.due):
            return
        cause = unit.rows.timers[self.due] or instance.first_cause
        instance.react_to(TimerFired(self.due.name, unit.now), cause)
        unit.remove_timer(instance, self.due)
        unit.save(instance)


@dataclass(frozen=True)
class Retry(_OfInstance[Instance]):
    """An operator's retry, once the events that the instance failed on were delivered again."""

    operator: str
    reason: str = ""

    def apply(self, unit: UnitOfWork) -> Instance:
        instance = self.find_existing(unit)
        if instance.failure:
            instance.operator_actions += 1
        else:
            instance.react_to(RetryRequested(unit.now), instance.first_cause)
        unit.actions.append((instance, OperatorAction("retry", self.reason, self.operator)))
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
        instance.react_to(AbortRequested(self.reason, unit.now), instance.first_cause)
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
class TakeOver(_OfInstance[None]):
    """Gives an instance whose state is of an earlier release the input that it needs."""

    def apply(self, unit: UnitOfWork) -> None:
        instance = self.find(unit)
        if not instance.unreadable and instance.saga.needs_input(instance.state):
            instance.react_to(RowTakenOver(unit.now))
            unit.save(instance)


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
