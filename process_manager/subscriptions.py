"""The streams that a saga follows, and the instances to which their events belong. Pure.

How it works:

- Without a key, a stream's events belong to the instance whose id is the aggregate's id. The instance
  receives all of them, from version 1 and without gaps: this is its own stream.
- With a key, each event of another stream names the instance to which it belongs, for instance a payment its
  order. An instance receives those that name it, in the order of their stream. The versions between may
  belong to other instances, so a gap among them means nothing.
- Events of different streams reach an instance in any order.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from contracts import streams
from contracts.envelope import RecordedEvent
from contracts.event_types import EventTypes

Key = Mapping[type[Message], str | Callable[[Any], str]]
"""For each type of event, the field with the instance's id, or a pure function that returns it."""


@dataclass(frozen=True)
class Subscription:
    """A type of stream whose events a saga receives.

    Args:
        stream_type: the type, for instance `ordering.order`.
        events: the events of those streams. The saga receives them in their newest version.
        key: names the instance that receives an event. Events of other types, and events for which it is
            empty or no valid id, are not delivered. None if the aggregate's id is the instance's.

    Raises:
        ValueError: the key names a type that is not an event in its newest version, or a field that it lacks.
    """

    stream_type: str
    events: EventTypes
    key: Key | None = None

    def __post_init__(self) -> None:
        self.events.check_newest(*(self.key or ()))
        for type_, name in (self.key or {}).items():
            if isinstance(name, str) and name not in type_.DESCRIPTOR.fields_by_name:
                raise ValueError(f"{self.stream_type}: {type_.DESCRIPTOR.full_name} has no field {name}")

    def find_instance(self, event: RecordedEvent) -> str:
        """Return the id of the instance to which an event belongs; empty if there is none.

        Raises:
            Exception: the event cannot be decoded, or the key's function failed.
        """
        if self.key is None:
            return streams.aggregate_id(event.stream)
        if event.type not in self.events or self.events.newest(event.type) not in self.key:
            return ""
        message = self.events.decode(event)
        name = self.key[type(message)]
        id_ = getattr(message, name, "") if isinstance(name, str) else name(message)
        return id_ if streams.VALID_ID.fullmatch(id_) else ""
