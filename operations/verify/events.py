"""Functions on an aggregate's events that the folds of several contexts use."""

from collections.abc import Iterator, Sequence
from typing import Any

from diptych.history.v1.history_pb2 import Entry
from google.protobuf.any_pb2 import Any as Packed

from operations.verify.model import Event
from operations.verify.spool import ParsedEvents


def get_first(events: Sequence[Event], *kinds: Any) -> Any:
    """Return the message of the first event.

    Raises:
        ValueError: it is of none of these kinds.
    """
    if not isinstance(events[0].message, kinds):
        raise ValueError(f"{events[0].recorded.type} cannot be version 1")
    return events[0].message


def iterate(events: Sequence[Event], *kinds: Any) -> Iterator[Any]:
    """Yield the messages of these kinds."""
    if isinstance(events, ParsedEvents):
        return events.select(kinds)
    return (event.message for event in events if isinstance(event.message, kinds))


def select(events: Sequence[Event], *kinds: Any) -> list[Any]:
    """Return the messages of these kinds, where they are few."""
    return list(iterate(events, *kinds))


def find_last(events: Sequence[Event], *kinds: Any) -> Any:
    """Return the last message of these kinds, or None."""
    last = None
    for message in iterate(events, *kinds):
        last = message
    return last


def describe(event: Event, *names: str) -> dict[str, Any]:
    """Return these fields of the event's `diptych.history.v1.Entry`."""
    recorded = event.recorded
    values = {
        "version": recorded.version,
        "record_time": recorded.recorded_at,
        "event_type": recorded.type,
        "event": Packed(type_url=f"type.googleapis.com/{recorded.type}", value=recorded.data),
        "request_id": recorded.metadata.get("causation_id", ""),
    }
    return {name: values[name] if name in values else recorded.metadata.get(name, "") for name in names}


def describe_all(events: Sequence[Event]) -> Iterator[Entry]:
    """Yield the history of an aggregate whose entries are `diptych.history.v1.Entry`."""
    return (Entry(**describe(event, *Entry.DESCRIPTOR.fields_by_name)) for event in events)
