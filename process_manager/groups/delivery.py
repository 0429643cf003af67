"""Delivers events to the instances to which they belong. Pure.

How it works:

- Each event is assigned to an instance by its subscription, and an instance receives the events of one stream
  in their order. Events are deduplicated by their version, so redelivery changes nothing.
- A stream is parked for a saga while earlier events have to be read from the stream itself: after a gap in an
  instance's own stream, after a failed input, or because an event cannot be assigned (a key's function has a
  bug). The events that the feed brings meanwhile are skipped, and only the version of the latest is noted.
  All other streams continue.
- No delivery reads a stream. `deliver_slice` gets events that were read before, from the first version
  that waits on, and notes how far it came. The stream is unparked once the latest skipped event was
  delivered. Feed and slice both need the row of the parked stream as it is, so no event is lost between them.
- An instance that fails on an event keeps the error as a failed input, and its stream is unparked: the next
  event of that stream that belongs to it parks the stream again. In streams other than an instance's own a
  gap means nothing.
- An instance with a failed input takes no later event before that one, so a slice that begins behind the
  failed event leaves it failed. A stream is parked at the first version that one of its instances needs, as
  far as the rows at hand tell; a stream that waited for its assignment starts again for the others.
- An event that an operator has had skipped moves the position of its instance, and nothing else.
- Events recorded before the saga's beginning are passed over. Within a stream they come first, because
  recorded times never decrease.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar

from contracts import streams
from contracts.envelope import RecordedEvent
from process_manager.groups.assignment import Assignment, Skipped, is_before
from process_manager.groups.instance import Instance
from process_manager.groups.stream_position import StreamPosition
from process_manager.groups.unit_of_work import UnitOfWork
from process_manager.postgres.due_work import Feed
from process_manager.postgres.stored_rows import ParkedStream
from process_manager.saga import Saga
from runtime.process import logs

log = logs.get_logger(__name__)

V = TypeVar("V", int, tuple[int, str])


class Progress(Enum):
    """The result of a slice."""

    MORE = "more events wait"
    ENDED = "the stream is not parked"
    FAILED = "an event is missing, cannot be assigned, or was not processed"


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
    """Delivers assigned events of a feed.

    Args:
        unit: has the instances and parked streams.
        saga: the saga.
        feed: the feed.
        beginning: the time before which no event is delivered; None to begin with the first event.
        assigned: the events.
        refused: the errors of the instances whose next event is a failed input, since PostgreSQL refuses what
            they make of it.
        skipped: versions by stream that instances step over.
    """

    unit: UnitOfWork
    saga: Saga[Any]
    feed: Feed
    beginning: datetime | None
    assigned: Assignment
    refused: Mapping[str, str] = field(default_factory=dict)
    skipped: Skipped = field(default_factory=dict)

    @property
    def _is_own(self) -> bool:
        return self.feed.stream_type == self.saga.own_type

    def deliver(self) -> Collection[str]:
        """Deliver the events; return those of their streams that are parked now."""
        latest = dict(self.assigned.latest)
        parked = set() if self._is_own else self._skip_parked()
        failures = {stream: each for stream, each in self.assigned.failures.items() if stream not in parked}
        behind: dict[str, int] = {}
        failed: dict[str, int] = {}
        for id_, own_streams in self.assigned.instances.items():
            instance = self.unit.find(self.saga.name, id_)
            delivered = {stream: events for stream, events in own_streams.items() if stream not in parked}
            for stream, events in delivered.items():
                if obstacle := instance.find_obstacle(stream):
                    _keep_first(failures, stream, (events[0].version, obstacle))
                elif not instance.unreadable and _is_behind(instance, stream, events):
                    position = instance.find_position(stream)
                    _keep_first(behind, stream, position.version + 1)
                    if stream != instance.own_stream:  # an event comes late; the failed one waits behind it
                        latest[stream] = max(latest[stream], position.failed_version)
                elif (
                    not self._apply(instance, stream, events) and instance.find_position(stream).failed_input
                ):
                    _keep_first(failed, stream, instance.find_position(stream).failed_version)
            if delivered:
                self.unit.save(instance)
        for stream, (version, error) in failures.items():
            self._park(stream, min(version, failed.get(stream, version)), latest[stream], error)
        for stream, version in behind.items():
            self.unit.park_behind(self.feed, stream, version, latest[stream])
        return {*parked, *failures, *behind}

    def _skip_parked(self) -> set[str]:
        """Return the parked streams, and note the versions of their latest events, which wait."""
        parked = set()
        for stream in self.assigned.streams:
            if row := self.unit.find_parked((self.saga.name, stream)):
                self.unit.park_behind(self.feed, stream, row.version, self.assigned.latest[stream])
                parked.add(stream)
        return parked

    def deliver_slice(self, read: Slice) -> Progress:
        """Deliver events of a parked stream; advance the version from which its events wait, or unpark it."""
        stream, row = read.stream, self.unit.find_parked((self.saga.name, read.stream))
        if row is None:
            return Progress.ENDED
        if row.version != read.version:
            return Progress.MORE  # another manager was faster
        instances = {id_: self.unit.find(self.saga.name, id_) for id_ in self.assigned.instances}
        if self._is_own:  # its timers stop or go on with its stream
            self.unit.save(self.unit.find(self.saga.name, streams.aggregate_id(stream)))
        if not read.events and not read.ended:
            self._park(stream, row.version, row.latest, f"EventsMissing: version {row.version} is missing")
            return Progress.FAILED
        left = _find_failed_before(row.version, stream, instances)
        failures, processed = self._apply_slice(stream, instances, left)
        self.unit.save(*instances.values())
        next_version = row.version + len(read.events)
        more = read.events and (next_version <= row.latest or not row.latest)
        if stream in failures:
            self._park_failed(row, instances, *failures[stream])
            return Progress.FAILED
        if left and row.error:  # when it was parked, the rows of these instances were not at hand
            self.unit.park(self.feed, stream, min(left.values()), row.latest, "")
            return Progress.MORE
        if (processed or not self._is_own) and more:
            self.unit.park(self.feed, stream, next_version, row.latest, "")
            return Progress.MORE
        self.unit.unpark(self.feed, stream)
        return Progress.ENDED if processed else Progress.FAILED

    def _apply_slice(
        self, stream: str, instances: Mapping[str, Instance], left: Collection[str]
    ) -> tuple[Mapping[str, tuple[int, str]], bool]:
        """Deliver the events of one stream.

        Args:
            stream: the stream.
            instances: those of the events.
            left: the instances that take none of the events.

        Returns:
            The first event by stream that has no instance that can take it, and whether no instance has a
            failed input now.
        """
        failures, processed = dict(self.assigned.failures), not left
        for id_, instance in instances.items():
            events = self.assigned.instances[id_][stream]
            if obstacle := instance.find_obstacle(stream):
                _keep_first(failures, stream, (events[0].version, obstacle))
            elif id_ not in left:
                processed &= self._apply(instance, stream, events)
        return failures, processed

    def _park_failed(
        self, row: ParkedStream, instances: Mapping[str, Instance], version: int, error: str
    ) -> None:
        """Park a stream again, at the first event of a slice that has to be delivered once more."""
        failed = (each.find_position(row.stream).failed_version for each in instances.values())
        first = min([version, *(each for each in failed if each >= row.version)])
        self._park(row.stream, first, row.latest, error)

    def _park(self, stream: str, version: int, latest: int, error: str) -> None:
        log.error("Stream parked", saga=self.saga.name, stream=stream, version=version, error=error)
        self.unit.park(self.feed, stream, version, latest, error)

    def _apply(self, instance: Instance, stream: str, events: Sequence[RecordedEvent]) -> bool:
        """Deliver the new events of one stream to an instance; return False if it fails on one.

        Args:
            instance: one of the unit.
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
            if is_before(self.beginning, event):
                if stream == instance.own_stream:
                    instance.set_position(stream, StreamPosition(event.version))
            elif event.version in self.skipped.get(stream, ()):
                instance.set_position(stream, StreamPosition(event.version))
            elif instance.id in self.refused:
                instance.refuse_event(event, self.refused[instance.id])
                return False
            elif not instance.receive_event(event, self.unit.now):
                return False
        return True


def _keep_first(versions: dict[str, V], stream: str, version: V) -> None:
    versions[stream] = min(version, versions.get(stream, version))


def _find_failed_before(version: int, stream: str, instances: Mapping[str, Instance]) -> Mapping[str, int]:
    """Return the instances that failed on an earlier event, with the version from which they need events."""
    positions = {id_: instance.find_position(stream) for id_, instance in instances.items()}
    return {id_: each.version + 1 for id_, each in positions.items() if 0 < each.failed_version < version}


def _is_behind(instance: Instance, stream: str, events: Sequence[RecordedEvent]) -> bool:
    """Return whether an instance needs events of a stream that precede these."""
    position = instance.find_position(stream)
    new = [event.version for event in events if event.version > position.version]
    if position.failed_input or stream != instance.own_stream:
        return bool(position.failed_input and new)
    return new != list(range(position.version + 1, position.version + 1 + len(new)))
