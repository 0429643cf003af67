"""Assigns events to the instances to which they belong. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from contracts.envelope import RecordedEvent
from process_manager.postgres.stored_values import to_text
from process_manager.saga import Saga
from runtime.process.error_place import append_place, find_place
from runtime.process.logs.repeated_errors import describe_error

Skipped = Mapping[str, frozenset[int]]
"""The versions by stream that a saga steps over."""
NO_SKIPS: Skipped = {}
CALLER = "process_manager.subscriptions"
"""The module that calls the functions of keys."""


@dataclass(frozen=True)
class Assignment:
    """Events by the instances to which they belong.

    Args:
        instances: the events by instance and stream.
        failures: by stream, the version of the first event that has no instance, and why.
        latest: by stream, the version of the last event.
    """

    instances: Mapping[str, Mapping[str, Sequence[RecordedEvent]]]
    failures: Mapping[str, tuple[int, str]]
    latest: Mapping[str, int]

    @property
    def streams(self) -> Collection[str]:
        """The streams with an event that has an instance, or whose instance cannot be found."""
        return {*self.failures, *(stream for streams in self.instances.values() for stream in streams)}


def assign(
    saga: Saga[Any],
    beginning: datetime | None,
    events: Sequence[RecordedEvent],
    skipped: Skipped = NO_SKIPS,
) -> Assignment:
    """Return events by instance.

    Args:
        saga: the saga.
        beginning: the time before which no event is delivered; None to begin with the first event.
        events: those of one feed, in the order of their streams.
        skipped: versions by stream. Such an event belongs to no instance if none can be found for it.
    """
    by_stream: dict[str, list[RecordedEvent]] = {}
    for event in events:
        by_stream.setdefault(event.stream, []).append(event)
    instances: dict[str, dict[str, list[RecordedEvent]]] = {}
    failures: dict[str, tuple[int, str]] = {}
    for stream, own_events in by_stream.items():
        subscription = saga.find_subscription(stream)
        if is_before(beginning, own_events[-1]):
            continue
        for event in own_events:
            if subscription.key is not None and is_before(beginning, event):
                continue
            try:
                id_ = subscription.find_instance(event)
            except Exception as error:  # an event or a key's function may be broken
                if event.version in skipped.get(stream, ()):
                    continue
                text = append_place(describe_error(error), find_place(error, CALLER))
                failures[stream] = event.version, to_text(text)
                break
            if id_:
                instances.setdefault(id_, {}).setdefault(stream, []).append(event)
    latest = {stream: own_events[-1].version for stream, own_events in by_stream.items()}
    return Assignment(instances, failures, latest)


def is_before(beginning: datetime | None, event: RecordedEvent) -> bool:
    return beginning is not None and event.recorded_at < beginning
