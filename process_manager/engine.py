"""Tells sagas what has happened: an event, an answer, a time, an operator's wish. Each in one transaction."""

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

History = Callable[[str], Awaitable[Sequence[RecordedEvent]]]
"""Returns all events of a stream, oldest first."""


class Gap(Exception):
    """Events of a stream are missing, and cannot be read now."""


class UnknownSaga(Exception):
    """There is no such saga."""


class Engine:
    """The sagas of all kinds, by what they are told.

    Args:
        store: where they are kept.
        sagas: their kinds.
        history: where a stream's events can be read again.
    """

    def __init__(self, store: SagaStore, sagas: Iterable[Saga[Any]], history: History) -> None:
        self.sagas: Mapping[str, Saga[Any]] = {saga.name: saga for saga in sagas}
        self.work_added = asyncio.Event()
        """Set whenever a saga has wanted a step or a timer."""
        self._store = store
        self._history = history

    async def receive_events(
        self,
        saga: Saga[Any],
        partition: int,
        events: Sequence[RecordedEvent],
        old: Checkpoint,
        new: Checkpoint,
    ) -> None:
        """Tell sagas of a kind the events of one partition between two places.

        Events that were heard before are passed over. A saga that is stuck at one hears no more until an
        operator retries or the next event comes, which both begin where it stopped.

        Raises:
            Superseded: another manager has told them.
            Gap: see there.
        """
        by_id: dict[str, list[RecordedEvent]] = {}
        for event in events:
            by_id.setdefault(streams.aggregate_id(event.stream), []).append(event)
        async with self._store.begin() as transaction:
            await transaction.advance_checkpoint(saga.name, partition, old, new)
            instances = await transaction.lock(saga, list(by_id)) if by_id else {}
            for id_, received in by_id.items():
                await self._receive_events(instances[id_], received, transaction.now)
            await transaction.write(instances.values())
        self._signal_work(*instances.values())

    async def _receive_events(
        self, instance: Instance, events: Sequence[RecordedEvent], at: datetime
    ) -> bool:
        """Tell a saga the events that it has not heard; return whether it could be told all."""
        if events and events[0].version > instance.version + 1:
            events = await self._history(events[0].stream)
        for event in events:
            if event.version <= instance.version:
                continue
            if event.version > instance.version + 1:
                raise Gap(f"{event.stream} has no version {instance.version + 1}")
            if not instance.receive_event(event, at):
                return False
        return True

    async def record_reply(self, step: DueStep, reply: StepReply) -> None:
        """Tell a saga how a step ended, unless it was told.

        Raises:
            Exception: it could not be told; nothing has changed.
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
        """Tell a saga that a timer has run out, unless the timer is gone.

        Raises:
            Exception: it could not be told; nothing has changed.
        """
        async with self._store.begin() as transaction:
            instance = (await transaction.lock(self.sagas[timer.saga], [timer.id]))[timer.id]
            if not await transaction.remove_timer(timer):
                return
            instance.react_to(TimerFired(timer.name, transaction.now))
            await transaction.write([instance])
        self._signal_work(instance)

    async def retry(self, saga: str, id_: str, operator: str) -> Instance:
        """Let a saga try again what was refused, and hear what it could not be told.

        Args:
            saga: its kind.
            id_: its id.
            operator: who wants it, for the record.

        Raises:
            Unknown: there is no such saga.
            Impossible: see there.
        """
        kind = self._kind(saga)
        events = await self._history(streams.stream_name(kind.subscribes_to, id_))
        async with self._store.begin() as transaction:
            instance = (await transaction.lock(kind, [id_]))[id_]
            self._check(instance)
            if await self._receive_events(instance, events, transaction.now):
                instance.react_to(RetryRequested(transaction.now))
            await transaction.record_action(instance, "retry", "", operator)
            await transaction.write([instance])
        self._signal_work(instance)
        return instance

    async def abort(self, saga: str, id_: str, reason: str, operator: str) -> Instance:
        """Let a saga end, undoing what can be undone.

        Args:
            saga: its kind.
            id_: its id.
            reason: why; others will read it.
            operator: who wants it, for the record.

        Raises:
            Unknown: there is no such saga.
            Impossible: see there.
        """
        async with self._store.begin() as transaction:
            instance = (await transaction.lock(self._kind(saga), [id_]))[id_]
            self._check(instance)
            instance.react_to(AbortRequested(reason, transaction.now))
            await transaction.record_action(instance, "abort", reason, operator)
            await transaction.write([instance])
        self._signal_work(instance)
        return instance

    def _kind(self, saga: str) -> Saga[Any]:
        if saga not in self.sagas:
            raise UnknownSaga(f"there is no saga {saga}; there are {', '.join(self.sagas)}")
        return self.sagas[saga]

    def _check(self, instance: Instance) -> None:
        if instance.began_at is None and not instance.failed_input:
            raise UnknownSaga(f"there is no {instance.saga.name} {instance.id}")

    def _signal_work(self, *instances: Instance) -> None:
        for instance in instances:
            if instance.failed_input:
                log.error(
                    "Saga is stuck", saga=instance.saga.name, sagaId=instance.id, why=instance.failed_input
                )
            if instance.steps or instance.timers:
                self.work_added.set()
