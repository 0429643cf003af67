"""Delivers inputs (event, step reply, timer, operator action) to sagas, one transaction per input.

How it works:

- Each delivery locks the instances' rows, applies the input to the pure saga, and commits the new state,
  the steps and the timers together with a record of the input: the checkpoint advanced, the step's outcome
  set, the timer removed, or the operator's action added.
- That record makes an input effective once. A second manager that delivers the same input finds the
  checkpoint moved, the outcome set or the timer gone, and changes nothing.
- `Delivery` finds the instances of events, and keeps the order of each stream.
- An instance that fails on an event keeps the error as a failed input, and the partition advances without
  it. The next event of that stream, or an operator's retry, delivers that event again.
- No transaction waits for JetStream: where earlier events of a stream are needed, `Delivery` parks it, and
  `deliver_parked` reads them before its transaction, slice by slice (`StreamReplayer` calls it).
- Steps and timers are not executed here: `StepDispatcher` and `TimerDispatcher` poll their rows, and
  `work_added` and `timers_set` wake them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from contracts import streams
from contracts.envelope import RecordedEvent
from process_manager.delivery import Delivery, Progress, Slice
from process_manager.due_work import Checkpoint, DueStep, DueTimer, Feed
from process_manager.instance import Instance, RowUnreadable
from process_manager.saga import AbortRequested, RetryRequested, Saga, StepRejected, StepSucceeded, TimerFired
from process_manager.step_client import StepReply
from process_manager.store import SagaStore
from runtime.process import logs

log = logs.get_logger(__name__)

ReadStream = Callable[[str, int], Awaitable[Sequence[RecordedEvent]]]
"""Returns the next events of a stream from a version on, oldest first; none if it has no such event."""


class UnknownSaga(Exception):
    """There is no saga of this name, or no instance of this id."""


class Engine:
    """Runs all sagas of this process.

    Args:
        store: stores the instances.
        sagas: their definitions.
        read_stream: reads events of one stream, to close gaps.
    """

    def __init__(self, store: SagaStore, sagas: Iterable[Saga[Any]], read_stream: ReadStream) -> None:
        self.sagas: Mapping[str, Saga[Any]] = {saga.name: saga for saga in sagas}
        self.work_added = asyncio.Event()
        """Set whenever a reaction adds a step."""
        self.timers_set = asyncio.Event()
        """Set whenever a reaction changes a timer."""
        self.after_delivery: Callable[[], None] = lambda: None
        """Called after each delivery of events."""
        self._beginnings: dict[str, datetime | None] = {}
        self._store = store
        self._read_stream = read_stream

    async def begin(self, saga: Saga[Any]) -> datetime | None:
        """Return the moment at which a saga begins, which the first call of the first manager takes."""
        if saga.name not in self._beginnings:
            self._beginnings[saga.name] = await self._store.keep_beginning(saga)
        return self._beginnings[saga.name]

    async def deliver_events(
        self, feed: Feed, events: Sequence[RecordedEvent], old: Checkpoint, new: Checkpoint
    ) -> Collection[str]:
        """Deliver a feed's events between two checkpoints to the instances to which they belong.

        Returns:
            The parked streams among those of the events: call `deliver_parked` for each.

        Raises:
            CheckpointConflict: another manager has delivered them.
        """
        saga = self._find_saga(feed.saga)
        beginning = await self.begin(saga)
        async with self._store.begin() as transaction:
            await transaction.advance_checkpoint(feed, old, new)
            delivered = await Delivery(transaction, saga, beginning).deliver(feed, events)
        self._signal_work(*delivered.instances)
        self.after_delivery()
        return delivered.parked

    async def deliver_parked(self, feed: Feed, stream: str) -> Progress:
        """Deliver the next events of a parked stream: read them, then deliver them in a transaction."""
        saga = self._find_saga(feed.saga)
        beginning = await self.begin(saga)
        version = await self._store.read_parked_version(feed, stream)
        if version is None:
            return Progress.ENDED
        events = await self._read_stream(stream, version)
        read = Slice(stream, version, list_successive(version, events), ended=not events)
        async with self._store.begin() as transaction:
            progress, instances = await Delivery(transaction, saga, beginning).deliver_slice(feed, read)
        self._signal_work(*instances)
        self.after_delivery()
        return progress

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
        async with self._store.begin(reserved=True) as transaction:
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
            RowUnreadable: this release cannot read the instance.
        """
        saga = self._find_saga(saga_name)
        await self._deliver_failed(saga, id_)
        async with self._store.begin() as transaction:
            instance = (await transaction.lock(saga, [id_]))[id_]
            _check_exists(instance)
            _check_readable(instance)
            if not instance.failure:
                instance.react_to(RetryRequested(transaction.now))
            await transaction.record_action(instance, "retry", "", operator)
            await transaction.write([instance])
            await transaction.resume(instance)
        self._signal_work(instance)
        return instance

    async def inspect(self, saga_name: str, id_: str) -> None:
        """Mark an instance whose row cannot be read; deliver what waited for one that can be read again."""
        saga = self._find_saga(saga_name)
        async with self._store.begin() as transaction:
            instance = (await transaction.lock(saga, [id_]))[id_]
            await transaction.write([instance])
        self._signal_work(instance)
        if instance.was_unreadable and not instance.unreadable:
            await self._deliver_failed(saga, id_)

    async def _deliver_failed(self, saga: Saga[Any], id_: str) -> None:
        """Deliver the events that an instance failed on, and those behind them."""
        for feed, stream in await self._park_failed(saga, id_):
            while await self.deliver_parked(feed, stream) is Progress.MORE:
                pass

    async def _park_failed(self, saga: Saga[Any], id_: str) -> list[tuple[Feed, str]]:
        """Park the streams with a failed input of an instance, to be read again; return them and its own."""
        async with self._store.begin() as transaction:
            instance = (await transaction.lock(saga, [id_]))[id_]
            _check_exists(instance)
            _check_readable(instance)
            parked = []
            for stream in filter(None, (instance.own_stream, *instance.other_streams)):
                feed = Feed(
                    saga.name, streams.stream_type(stream), streams.partition(streams.aggregate_id(stream))
                )
                position = instance.find_position(stream)
                if position.failed_input:
                    await transaction.park_behind(feed, {stream: position.version + 1}, {stream: 0})
                if position.failed_input or stream == instance.own_stream:
                    parked.append((feed, stream))
            return parked

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
            RowUnreadable: this release cannot read the instance.
        """
        async with self._store.begin() as transaction:
            instance = (await transaction.lock(self._find_saga(saga_name), [id_]))[id_]
            _check_exists(instance)
            _check_readable(instance)
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
            if error := instance.failure or instance.unreadable:
                log.error(
                    "Saga blocked",
                    saga=instance.saga.name,
                    sagaId=instance.id,
                    eventId=instance.failed_event_id,
                    correlationId=instance.correlation_id or None,
                    error=error,
                )
            if instance.steps:
                self.work_added.set()
            if instance.timers:
                self.timers_set.set()


def list_successive(version: int, events: Sequence[RecordedEvent]) -> list[RecordedEvent]:
    """Return the events that follow one another from a version on."""
    successive: list[RecordedEvent] = []
    for event in sorted(events, key=lambda event: event.version):
        if event.version == version + len(successive):
            successive.append(event)
    return successive


def _check_exists(instance: Instance) -> None:
    if not instance.exists:
        raise UnknownSaga(f"there is no {instance.saga.name} {instance.id}")


def _check_readable(instance: Instance) -> None:
    if instance.unreadable:
        raise RowUnreadable(f"{instance.saga.name} {instance.id}: {instance.unreadable}")
