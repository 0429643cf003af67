"""Delivers events to the instances to which they belong, in one transaction.

How it works:

- Each event is assigned to an instance by its subscription. Where that fails, for instance because a key's
  function has a bug, the event's stream is parked: its events wait, all other streams continue, and the next
  event or the next start of a consumer reads the stream again from the parked version on.
- Events are deduplicated by their version in their stream, so redelivery changes nothing.
- In an instance's own stream, a gap before the first event, such as after a failed input, is closed from the
  stream itself. In other streams a gap means nothing; there the failed input makes the instance read the
  stream again. Either way an instance receives the events of one stream in their order.
- Events recorded before the saga's beginning are passed over. Within a stream they come first, because
  recorded times never decrease.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from contracts.envelope import RecordedEvent
from process_manager.due_work import Feed
from process_manager.instance import Instance, StreamPosition
from process_manager.saga import Saga
from process_manager.subscriptions import Subscription
from process_manager.transaction import Transaction
from runtime.process import logs

log = logs.get_logger(__name__)

ReadStream = Callable[[str], Awaitable[Sequence[RecordedEvent]]]
"""Returns all events of a stream, oldest first."""
EventsByStream = Mapping[str, Sequence[RecordedEvent]]


class EventsMissing(Exception):
    """Events of a stream are missing from the partition, and from the stream itself."""


@dataclass(frozen=True)
class Delivery:
    """Delivers the events of a saga's feeds.

    Args:
        transaction: locks and writes the instances.
        saga: their definition.
        beginning: the time before which no event is delivered; None to begin with the first event.
        read_stream: reads the events of one stream.
    """

    transaction: Transaction
    saga: Saga[Any]
    beginning: datetime | None
    read_stream: ReadStream

    async def deliver(self, feed: Feed, events: Sequence[RecordedEvent]) -> Collection[Instance]:
        """Deliver events of a feed, and return the instances to which they belong.

        Raises:
            EventsMissing: an instance cannot be brought up to date.
        """
        by_stream: dict[str, list[RecordedEvent]] = {}
        for event in events:
            by_stream.setdefault(event.stream, []).append(event)
        keyed = feed.stream_type != self.saga.own_type
        parked = await self.transaction.read_parked(feed, list(by_stream)) if keyed else {}
        return await self._deliver(feed, {**by_stream, **await self._read_parked(parked)}, parked)

    async def deliver_parked(self, feed: Feed) -> Collection[Instance]:
        """Deliver the events of a feed's parked streams that can be assigned now."""
        parked = await self.transaction.read_parked(feed)
        return await self._deliver(feed, await self._read_parked(parked), parked) if parked else ()

    async def _read_parked(self, parked: Mapping[str, int]) -> dict[str, Sequence[RecordedEvent]]:
        return {
            stream: [event for event in await self.read_stream(stream) if event.version >= version]
            for stream, version in parked.items()
        }

    async def _deliver(
        self, feed: Feed, by_stream: EventsByStream, parked: Mapping[str, int]
    ) -> Collection[Instance]:
        assigned, failures = self._assign(by_stream)
        instances = await self.transaction.lock(self.saga, list(assigned)) if assigned else {}
        for id_, streams in assigned.items():
            for stream, events in streams.items():
                if instances[id_].has_room_for(stream):
                    await self.catch_up(instances[id_], stream, events)
                else:
                    failures[stream] = events[0].version, f"{id_} follows too many streams"
        for stream, (version, error) in failures.items():
            log.error("Stream parked", saga=self.saga.name, stream=stream, version=version, error=error)
        await self.transaction.park(feed, failures)
        delivered = [stream for stream in parked if by_stream[stream] and stream not in failures]
        await self.transaction.unpark(feed, delivered)
        await self.transaction.write(instances.values())
        return instances.values()

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
                    failures[stream] = event.version, f"{type(error).__name__}: {error}"
                    break
                if id_:
                    assigned.setdefault(id_, {}).setdefault(stream, []).append(event)
        return assigned, failures

    async def catch_up(self, instance: Instance, stream: str, events: Sequence[RecordedEvent]) -> bool:
        """Deliver the new events of one stream to an instance; return False if it fails on one.

        Args:
            instance: locked by the transaction.
            stream: the stream.
            events: those of its events that belong to the instance, or the latest of them.

        Raises:
            EventsMissing: an event of the instance's own stream is missing.
        """
        own, position = stream == instance.own_stream, instance.find_position(stream)
        if own and events and events[0].version > position.version + 1:
            events = await self.read_stream(stream)
        elif not own and position.failed_input:
            subscription = self.saga.find_subscription(stream)
            events = _select(subscription, instance.id, await self.read_stream(stream))
        for event in events:
            version = instance.find_position(stream).version
            if event.version <= version:
                continue
            if own and event.version > version + 1:
                raise EventsMissing(f"{stream}: version {version + 1} is missing")
            if self._is_before_beginning(event):
                if own:
                    instance.set_position(stream, StreamPosition(event.version))
            elif not instance.receive_event(event, self.transaction.now):
                return False
        return True

    def _is_before_beginning(self, event: RecordedEvent) -> bool:
        return self.beginning is not None and event.recorded_at < self.beginning


def _select(subscription: Subscription, id_: str, events: Sequence[RecordedEvent]) -> list[RecordedEvent]:
    """Return the events that belong to an instance, up to the first that cannot be assigned."""
    selected = []
    for event in events:
        try:
            if subscription.find_instance(event) == id_:
                selected.append(event)
        except Exception:  # the stream is parked at this event
            break
    return selected
