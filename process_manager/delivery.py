"""Delivers events to the instances to which they belong, in one transaction.

How it works:

- Each event is assigned to an instance by its subscription, and an instance receives the events of one stream
  in their order. Events are deduplicated by their version, so redelivery changes nothing.
- A stream is parked for a saga while earlier events have to be read from the stream itself: after a gap in an
  instance's own stream, after a failed input, or because an event cannot be assigned (a key's function has a
  bug). The events that the feed brings meanwhile are skipped, and only the version of the latest is noted.
  All other streams continue.
- No transaction reads a stream. `deliver_slice` gets events that were read before, from the first version
  that waits on, and notes how far it came. The stream is unparked once the latest skipped event was
  delivered. Feed and slice both lock the row of the parked stream, so no event is lost between them.
- An instance that fails on an event keeps the error as a failed input, and its stream is unparked: the next
  event of that stream parks it again. In streams other than an instance's own a gap means nothing.
- The timers of an instance whose own stream is parked are stopped as long.
- Events recorded before the saga's beginning are passed over. Within a stream they come first, because
  recorded times never decrease.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from contracts import streams
from contracts.envelope import RecordedEvent
from process_manager.due_work import Feed
from process_manager.instance import Instance, StreamPosition
from process_manager.saga import Saga
from process_manager.stored_values import to_text
from process_manager.transaction import Transaction
from runtime.process import logs

log = logs.get_logger(__name__)

EventsByStream = Mapping[str, Sequence[RecordedEvent]]


class Progress(Enum):
    """The result of a slice."""

    MORE = "more events wait"
    ENDED = "the stream is not parked"
    FAILED = "an event is missing, cannot be assigned, or was not processed"


@dataclass(frozen=True)
class Delivered:
    """The result of a delivery."""

    instances: Collection[Instance]
    parked: Collection[str]
    """The streams with events that wait."""


@dataclass(frozen=True)
class Slice:
    """Events of a parked stream, read from a version on.

    Args:
        stream: the stream.
        version: of the first event that was wanted.
        events: without a gap behind that version; none if it is missing.
        ended: whether the stream has neither that event nor a later one.
    """

    stream: str
    version: int
    events: Sequence[RecordedEvent]
    ended: bool


@dataclass(frozen=True)
class Delivery:
    """Delivers the events of a saga's feeds.

    Args:
        transaction: locks and writes the instances.
        saga: their definition.
        beginning: the time before which no event is delivered; None to begin with the first event.
    """

    transaction: Transaction
    saga: Saga[Any]
    beginning: datetime | None

    async def deliver(self, feed: Feed, events: Sequence[RecordedEvent]) -> Delivered:
        """Deliver events of a feed."""
        by_stream: dict[str, list[RecordedEvent]] = {}
        for event in events:
            by_stream.setdefault(event.stream, []).append(event)
        latest = {stream: own_events[-1].version for stream, own_events in by_stream.items()}
        keyed = feed.stream_type != self.saga.own_type
        parked = await self.transaction.skip_parked(feed, latest) if keyed else set()
        assigned, failures = self._assign({s: each for s, each in by_stream.items() if s not in parked})
        instances = await self.transaction.lock(self.saga, list(assigned)) if assigned else {}
        behind: dict[str, int] = {}
        for id_, own_streams in assigned.items():
            for stream, own_events in own_streams.items():
                instance = instances[id_]
                if obstacle := instance.find_obstacle(stream):
                    failures[stream] = own_events[0].version, obstacle
                elif not instance.unreadable and self._is_behind(instance, stream, own_events):
                    wanted = instance.find_position(stream).version + 1
                    behind[stream] = min(wanted, behind.get(stream, wanted))
                else:
                    self._apply(instance, stream, own_events)
        await self._park(feed, failures, latest)
        await self.transaction.park_behind(feed, behind, latest)
        if not keyed:
            await self.transaction.stop_timers(self.saga, [streams.aggregate_id(each) for each in behind])
        await self.transaction.write(instances.values())
        return Delivered(instances.values(), {*parked, *failures, *behind})

    async def deliver_slice(self, feed: Feed, read: Slice) -> tuple[Progress, Collection[Instance]]:
        """Deliver events of a parked stream; advance the version from which its events wait, or unpark it."""
        stream, own = read.stream, feed.stream_type == self.saga.own_type
        instances: dict[str, Instance] = {}
        if own:  # in the order of `deliver`: the instance before the row of the parked stream
            instances = await self.transaction.lock(self.saga, [streams.aggregate_id(stream)])
        row = await self.transaction.lock_parked(feed, stream)
        if row is None:
            return Progress.ENDED, ()
        version, latest = row
        if version != read.version:
            return Progress.MORE, ()  # another manager was faster
        if not read.events and not read.ended:
            error = f"EventsMissing: version {version} is missing"
            await self._park(feed, {stream: (version, error)}, {stream: latest})
            await self.transaction.stop_timers(self.saga, list(instances))
            return Progress.FAILED, ()
        assigned, failures = self._assign({stream: read.events})
        if not own and assigned:
            instances = await self.transaction.lock(self.saga, list(assigned))
        processed = self._apply_slice(stream, assigned, instances, failures)
        await self.transaction.write(instances.values())
        next_version = version + len(read.events)
        if failures:
            await self._park(feed, failures, {stream: latest})
        elif (processed or not own) and read.events and (next_version <= latest or not latest):
            await self.transaction.advance_parked(feed, stream, next_version)
            return Progress.MORE, instances.values()
        else:
            await self.transaction.unpark(feed, stream)
            if own:
                readable = [id_ for id_, each in instances.items() if not (each.failure or each.unreadable)]
                await self.transaction.resume_timers(self.saga, readable)
        done = processed and not failures
        return Progress.ENDED if done else Progress.FAILED, instances.values()

    def _apply_slice(
        self,
        stream: str,
        assigned: Mapping[str, EventsByStream],
        instances: Mapping[str, Instance],
        failures: dict[str, tuple[int, str]],
    ) -> bool:
        """Deliver the events of one stream; return False if an instance has a failed input now."""
        processed = True
        for id_, own_streams in assigned.items():
            obstacle = instances[id_].find_obstacle(stream)
            if not obstacle:
                processed &= self._apply(instances[id_], stream, own_streams[stream])
            elif stream not in failures:
                failures[stream] = own_streams[stream][0].version, obstacle
        return processed

    async def _park(
        self, feed: Feed, failures: Mapping[str, tuple[int, str]], latest: Mapping[str, int]
    ) -> None:
        for stream, (version, error) in failures.items():
            log.error("Stream parked", saga=self.saga.name, stream=stream, version=version, error=error)
        await self.transaction.park(feed, failures, latest)

    def _assign(
        self, by_stream: EventsByStream
    ) -> tuple[dict[str, dict[str, list[RecordedEvent]]], dict[str, tuple[int, str]]]:
        """Return events by instance and stream, and the first event of each stream that has no instance."""
        assigned: dict[str, dict[str, list[RecordedEvent]]] = {}
        failures: dict[str, tuple[int, str]] = {}
        for stream, events in by_stream.items():
            subscription = self.saga.find_subscription(stream)
            if not events or self._is_before_beginning(events[-1]):
                continue
            for event in events:
                if subscription.key is not None and self._is_before_beginning(event):
                    continue
                try:
                    id_ = subscription.find_instance(event)
                except Exception as error:  # an event or a key's function may be broken
                    failures[stream] = event.version, to_text(f"{type(error).__name__}: {error}")
                    break
                if id_:
                    assigned.setdefault(id_, {}).setdefault(stream, []).append(event)
        return assigned, failures

    def _is_behind(self, instance: Instance, stream: str, events: Sequence[RecordedEvent]) -> bool:
        """Return whether an instance needs events of a stream that precede these."""
        position = instance.find_position(stream)
        new = [event.version for event in events if event.version > position.version]
        if position.failed_input or stream != instance.own_stream:
            return bool(position.failed_input and new)
        return new != list(range(position.version + 1, position.version + 1 + len(new)))

    def _apply(self, instance: Instance, stream: str, events: Sequence[RecordedEvent]) -> bool:
        """Deliver the new events of one stream to an instance; return False if it fails on one.

        Args:
            instance: locked by the transaction.
            stream: the stream.
            events: those of its events that belong to the instance.
        """
        if instance.unreadable:
            version = instance.find_position(stream).version
            if waiting := [event.version for event in events if event.version > version]:
                instance.keep_waiting(stream, waiting[0])
            return False
        for event in events:
            if event.version <= instance.find_position(stream).version:
                continue
            if self._is_before_beginning(event):
                if stream == instance.own_stream:
                    instance.set_position(stream, StreamPosition(event.version))
            elif not instance.receive_event(event, self.transaction.now):
                return False
        return True

    def _is_before_beginning(self, event: RecordedEvent) -> bool:
        return self.beginning is not None and event.recorded_at < self.beginning
