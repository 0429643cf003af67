"""Delivers inputs (event, step reply, timer, operator action) to sagas, in groups.

How it works:

- Each input is applied to the pure saga, and the new state, the steps and the timers are committed together
  with a record of the input: the checkpoint advanced, the step's outcome set, the timer removed, or the
  operator's action added. Inputs that arrive together share a transaction (`GroupCommit`).
- That record makes an input effective once. A second manager that delivers the same input finds the
  checkpoint moved, the outcome set or the timer gone, and changes nothing.
- `Delivery` finds the instances of events, and keeps the order of each stream.
- An instance that fails on an event keeps the error as a failed input, and the partition advances without
  it. The next event of that stream, or an operator's retry, delivers that event again.
- No transaction waits for JetStream: where earlier events of a stream are needed, `Delivery` parks it, and
  `deliver_parked` reads them before its input, slice by slice (`StreamReplayer` calls it).
- Steps and timers are not executed here. `StepDispatcher` gets each step after the commit, and polls for what
  it does not get; `on_timers` wakes `TimerDispatcher`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from contracts.envelope import RecordedEvent
from process_manager.dispatch.step_client import StepReply
from process_manager.groups.delivery import Progress, Slice
from process_manager.groups.group_commit import GroupCommit
from process_manager.groups.inputs import EventBatch, ParkedSlice
from process_manager.groups.instance import Instance
from process_manager.groups.instance_inputs import (
    Cancellation,
    ParkFailed,
    Reply,
    Retry,
    RowInspection,
    TakeOver,
    TimerFiring,
    UnknownSaga,
)
from process_manager.postgres.due_work import Checkpoint, DueStep, DueTimer, Feed
from process_manager.postgres.store import SagaStore
from process_manager.saga import Saga
from process_manager.traces import EventTraces
from runtime.process import logs
from runtime.telemetry import trace_context

log = logs.get_logger(__name__)

ReadStream = Callable[[str, int], Awaitable[Sequence[RecordedEvent]]]
"""Returns the next events of a stream from a version on, oldest first; none if it has no such event."""


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
        """Set whenever a reaction adds a step that `on_steps` has not taken."""
        self.on_timers: Callable[[datetime], None] = lambda _: None
        """Called with the earliest of the timers that a reaction has set."""
        self.after_delivery: Callable[[], None] = lambda: None
        """Called after each delivery of events."""
        self.on_steps: Callable[[Instance], None] = lambda _: self.work_added.set()
        """Called with each instance that has new steps, once they are committed."""
        self._beginnings: dict[str, datetime | None] = {}
        self._skips: dict[str, dict[str, frozenset[int]]] = {}
        """The skipped events of each saga, as last read."""
        self._store = store
        self._read_stream = read_stream
        self._traces = EventTraces()
        self._commit = GroupCommit(store.groups, lambda: self.sagas, self._signal_work)

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
        if saga.name not in self._skips:
            self._skips[saga.name] = await self._store.read_skips(saga.name)
        skipped = self._skips[saga.name]
        batch = EventBatch(saga, await self.begin(saga), feed, events, old, new, skipped=skipped)
        with self._traces.receive(saga, events):
            parked = await self._commit.execute(batch)
        self.after_delivery()
        return parked

    async def deliver_parked(self, feed: Feed, stream: str) -> Progress:
        """Deliver the next events of a parked stream: read them, then deliver them."""
        saga = self._find_saga(feed.saga)
        beginning = await self.begin(saga)
        version = await self._store.read_parked_version(feed, stream)
        if version is None:
            return Progress.ENDED
        skipped = await self._store.read_skips(saga.name, stream)
        self._skips.get(saga.name, {}).update(skipped)
        events = await self._read_stream(stream, version)
        read = Slice(stream, version, list_successive(version, events), ended=not events)
        with self._traces.receive(saga, read.events):
            progress = await self._commit.execute(ParkedSlice(saga, beginning, feed, read, skipped=skipped))
        self.after_delivery()
        return progress

    async def record_reply(self, step: DueStep, reply: StepReply) -> None:
        """Record a step's outcome and deliver it to the saga, unless the step has an outcome.

        Raises:
            Exception: the delivery failed; nothing has changed.
        """
        await self._commit.execute(Reply(step.saga, step.id, step, reply))

    async def fire_timer(self, timer: DueTimer) -> None:
        """Remove a timer and deliver its firing to the saga, unless it was removed or set to another time.

        Raises:
            Exception: the delivery failed; nothing has changed.
        """
        await self._commit.execute(TimerFiring(timer.saga, timer.id, timer))

    async def retry(self, saga_name: str, id_: str, operator: str, reason: str = "") -> Instance:
        """Deliver the events that the instance failed on, then let the saga retry its rejected steps.

        Args:
            saga_name: the saga's name.
            id_: the instance's id.
            operator: the name to record.
            reason: recorded.

        Raises:
            UnknownSaga: there is no such instance.
            ActionNotPossible: the saga's state does not permit it.
            RowUnreadable: this release cannot read the instance.
        """
        saga = self._find_saga(saga_name)
        await self._deliver_failed(saga, id_)
        return await self._commit.execute(Retry(saga.name, id_, operator, reason))

    async def inspect(self, saga_name: str, id_: str) -> None:
        """Mark an instance whose row cannot be read; deliver what waited for one that can be read again."""
        saga = self._find_saga(saga_name)
        instance = await self._commit.execute(RowInspection(saga.name, id_))
        if instance.was_unreadable and not instance.unreadable:
            await self._deliver_failed(saga, id_)

    async def take_over(self, saga_name: str, id_: str) -> None:
        """Give an instance whose state is of an earlier release the input that it needs."""
        await self._commit.execute(TakeOver(self._find_saga(saga_name).name, id_))

    async def deliver_failed(self, saga_name: str, id_: str) -> None:
        """Deliver the events that an instance failed on again, those that are skipped by now excepted.

        Raises:
            UnknownSaga: there is no such instance.
            RowUnreadable: this release cannot read the instance.
        """
        await self._deliver_failed(self._find_saga(saga_name), id_)

    async def _deliver_failed(self, saga: Saga[Any], id_: str) -> None:
        """Deliver the events that an instance failed on, and those behind them."""
        for feed, stream in await self._commit.execute(ParkFailed(saga.name, id_)):
            while await self.deliver_parked(feed, stream) is Progress.MORE:
                pass

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
        return await self._commit.execute(
            Cancellation(self._find_saga(saga_name).name, id_, reason, operator)
        )

    def _find_saga(self, name: str) -> Saga[Any]:
        if name not in self.sagas:
            raise UnknownSaga(f"unknown saga {name}, choose one of {', '.join(self.sagas)}")
        return self.sagas[name]

    def _signal_work(self, instances: Collection[Instance]) -> None:
        self._traces.record(instances, self._store.groups.written_ns)
        for instance in instances:
            if error := instance.failure or instance.unreadable:
                log.error(
                    "Saga blocked",
                    saga=instance.saga.name,
                    sagaId=instance.id,
                    eventId=instance.failed_event_id,
                    correlationId=instance.correlation_id or None,
                    error=error,
                    **trace_context.build_log_fields(instance.traceparent),
                )
            if instance.steps:
                self.on_steps(instance)
            if times := [at for at in instance.timers.values() if at is not None]:
                self.on_timers(min(times))


def list_successive(version: int, events: Sequence[RecordedEvent]) -> list[RecordedEvent]:
    """Return the events that follow one another from a version on."""
    successive: list[RecordedEvent] = []
    for event in sorted(events, key=lambda event: event.version):
        if event.version == version + len(successive):
            successive.append(event)
    return successive
