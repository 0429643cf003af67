"""Delivers inputs (event, step reply, timer, operator action) to sagas, one transaction per input.

How it works:

- Each delivery locks the instances' rows, applies the input to the pure saga, and commits the new state,
  the steps and the timers together with a record of the input: the checkpoint advanced, the step's outcome
  set, the timer removed, or the operator's action added.
- That record makes an input effective once. A second manager that delivers the same input finds the
  checkpoint moved, the outcome set or the timer gone, and changes nothing.
- Events are deduplicated by their version. A gap before the first of them, such as after an instance failed
  on an event, is closed from the stream itself (`ReadStream`).
- An instance that fails on an event keeps the error in `failed_input`, and the partition advances without
  it. The next event, or an operator's retry, delivers that event again.
- Steps and timers are not executed here: `StepDispatcher` polls their rows, and `work_added` wakes it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from contracts import streams
from contracts.envelope import RecordedEvent
from process_manager.due_work import Checkpoint, DueStep, DueTimer
from process_manager.instance import Instance
from process_manager.saga import AbortRequested, RetryRequested, Saga, StepRejected, StepSucceeded, TimerFired
from process_manager.step_client import StepReply
from process_manager.store import SagaStore
from runtime.process import logs

log = logs.get_logger(__name__)

ReadStream = Callable[[str], Awaitable[Sequence[RecordedEvent]]]
"""Returns all events of a stream, oldest first."""


class EventsMissing(Exception):
    """Events of a stream are missing from the partition, and from the stream itself."""


class UnknownSaga(Exception):
    """There is no saga of this name, or no instance of this id."""


class Engine:
    """Runs all sagas of this process.

    Args:
        store: stores the instances.
        sagas: their definitions.
        read_stream: reads the events of one stream, to close gaps.
    """

    def __init__(self, store: SagaStore, sagas: Iterable[Saga[Any]], read_stream: ReadStream) -> None:
        self.sagas: Mapping[str, Saga[Any]] = {saga.name: saga for saga in sagas}
        self.work_added = asyncio.Event()
        """Set whenever a reaction adds a step or changes a timer."""
        self._store = store
        self._read_stream = read_stream

    async def deliver_events(
        self,
        saga: Saga[Any],
        partition: int,
        events: Sequence[RecordedEvent],
        old: Checkpoint,
        new: Checkpoint,
    ) -> None:
        """Deliver the events of one partition between two checkpoints to the instances of a saga.

        Raises:
            CheckpointConflict: another manager has delivered them.
            EventsMissing: an instance cannot be brought up to date; no instance has changed.
        """
        events_by_id: dict[str, list[RecordedEvent]] = {}
        for event in events:
            events_by_id.setdefault(streams.aggregate_id(event.stream), []).append(event)
        async with self._store.begin() as transaction:
            await transaction.advance_checkpoint(saga.name, partition, old, new)
            instances = await transaction.lock(saga, list(events_by_id)) if events_by_id else {}
            for id_, stream_events in events_by_id.items():
                await self._catch_up(instances[id_], stream_events, transaction.now)
            await transaction.write(instances.values())
        self._signal_work(*instances.values())

    async def _catch_up(self, instance: Instance, events: Sequence[RecordedEvent], at: datetime) -> bool:
        """Deliver the events that an instance has not processed; return False if it fails on one."""
        if events and events[0].version > instance.version + 1:
            events = await self._read_stream(events[0].stream)
        for event in events:
            if event.version <= instance.version:
                continue
            if event.version > instance.version + 1:
                raise EventsMissing(f"{event.stream}: version {instance.version + 1} is missing")
            if not instance.receive_event(event, at):
                return False
        return True

    async def record_reply(self, step: DueStep, reply: StepReply) -> None:
        """Record a step's outcome and deliver it to the saga, unless the step has an outcome.

        Raises:
            Exception: the delivery failed; nothing has changed.
        """
        async with self._store.begin() as transaction:
            instance = (await transaction.lock(self.sagas[step.saga], [step.id]))[step.id]
            if not await transaction.record_outcome(step, reply.reason or "OK"):
                return
            if reply.reason:
                instance.react_to(StepRejected(step.step, reply.reason, reply.details, transaction.now))
            else:
                instance.react_to(StepSucceeded(step.step, reply.response, transaction.now))
            await transaction.write([instance])
        self._signal_work(instance)

    async def fire_timer(self, timer: DueTimer) -> None:
        """Remove a timer and deliver its firing to the saga, unless it was removed or set to another time.

        Raises:
            Exception: the delivery failed; nothing has changed.
        """
        async with self._store.begin() as transaction:
            instance = (await transaction.lock(self.sagas[timer.saga], [timer.id]))[timer.id]
            if not await transaction.remove_timer(timer):
                return
            instance.react_to(TimerFired(timer.name, transaction.now))
            await transaction.write([instance])
        self._signal_work(instance)

    async def retry(self, saga_name: str, id_: str, operator: str) -> Instance:
        """Deliver the events that the instance failed on, then let the saga retry its rejected steps.

        Args:
            saga_name: the saga's name.
            id_: the instance's id.
            operator: the name to record.

        Raises:
            UnknownSaga: there is no such instance.
            ActionNotPossible: the saga's state does not permit it.
            EventsMissing: the stream cannot be read without gaps.
        """
        saga = self._find_saga(saga_name)
        events = await self._read_stream(streams.stream_name(saga.subscribes_to, id_))
        async with self._store.begin() as transaction:
            instance = (await transaction.lock(saga, [id_]))[id_]
            _check_exists(instance)
            if await self._catch_up(instance, events, transaction.now):
                instance.react_to(RetryRequested(transaction.now))
            await transaction.record_action(instance, "retry", "", operator)
            await transaction.write([instance])
        self._signal_work(instance)
        return instance

    async def abort(self, saga_name: str, id_: str, reason: str, operator: str) -> Instance:
        """End an instance, with compensation for its steps where that is possible.

        Args:
            saga_name: the saga's name.
            id_: the instance's id.
            reason: recorded, and passed on in the compensating requests.
            operator: the name to record.

        Raises:
            UnknownSaga: there is no such instance.
            ActionNotPossible: the saga's state does not permit it.
        """
        async with self._store.begin() as transaction:
            instance = (await transaction.lock(self._find_saga(saga_name), [id_]))[id_]
            _check_exists(instance)
            instance.react_to(AbortRequested(reason, transaction.now))
            await transaction.record_action(instance, "abort", reason, operator)
            await transaction.write([instance])
        self._signal_work(instance)
        return instance

    def _find_saga(self, name: str) -> Saga[Any]:
        if name not in self.sagas:
            raise UnknownSaga(f"unknown saga {name}, choose one of {', '.join(self.sagas)}")
        return self.sagas[name]

    def _signal_work(self, *instances: Instance) -> None:
        for instance in instances:
            if instance.failed_input:
                log.error(
                    "Saga blocked", saga=instance.saga.name, sagaId=instance.id, error=instance.failed_input
                )
            if instance.steps or instance.timers:
                self.work_added.set()


def _check_exists(instance: Instance) -> None:
    if instance.began_at is None and not instance.failed_input:
        raise UnknownSaga(f"there is no {instance.saga.name} {instance.id}")
