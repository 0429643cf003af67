"""The event index: what a rule may know of earlier events in other streams. Vocabulary of the domain; pure.

How it works. A context declares an `EventIndex`: which events of an aggregate are found by which keys. A
decider declares a `Lookup`: the stream that its command is about, and the keys to read. The kernel builds the
index from the event store (`event_lookups.py`) and hands the command what was recorded before that stream's
first event, as `EarlierEvents`. Such an answer never changes: no event is recorded before an event that is
committed. A command decides on it no matter when it arrives, and no stream has to be locked for it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class EventIndex:
    """Finds events of one aggregate by keys."""

    name: str
    """`<context>.<name>`. Change it when the keys of any event change, for the index to be built anew."""
    stream_type: str
    """The aggregate's type, for instance `ordering.order`."""
    events: tuple[type, ...]
    """The classes of the events that have keys."""
    keys: Callable[[Any, Any], Sequence[str]]
    """`keys(event, state)`: the keys of an event, from the event and the aggregate's state after it."""


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """An event that was found by a key."""

    aggregate_id: str
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class EarlierEvents:
    """What a command may know: a stream's state, and events that were recorded before its first event."""

    state: Any
    """The state of the stream at the version that the command names."""
    recorded_at: datetime
    """The time of the stream's first event."""
    entries: Mapping[str, Sequence[IndexEntry]]
    """The events found by each key, the latest first."""


@dataclass(frozen=True)
class Lookup:
    """The earlier events that a command needs. They are in its field `earlier_events`.

    The field is None if the stream does not exist at that version.
    """

    index: EventIndex
    stream: Callable[[Any], tuple[str, int]]
    """`stream(command)`: the name of the stream that the command is about, of the type that the index covers,
    and the version whose state the command needs."""
    keys: Callable[[Any], Mapping[str, int]]
    """`keys(state)`: the keys to read, each with the maximum number of events."""
