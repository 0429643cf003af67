"""The common fields of history entries: the actor, time and command of an event.

A projection gives such a function to `Projection(history=...)`, or calls it in a function of its own that
adds what only its context knows, for instance the balance after the event.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from diptych.history.v1.history_pb2 import Entry
from google.protobuf.message import Message

from contracts.envelope import RecordedEvent
from runtime.codec import encode_timestamp

E = TypeVar("E", bound=Message)

METADATA_KEYS = {
    "actor": "actor",
    "command": "command",
    "request_id": "causation_id",  # an event's cause is the request of its command
    "correlation_id": "correlation_id",
    "on_behalf_of": "on_behalf_of",
}
"""Field of an entry to the key of the event's metadata."""
TYPE_URL_PREFIX = "type.googleapis.com/"


def entry_factory(
    message: type[E], *, record_time: str = "record_time"
) -> Callable[[Message, RecordedEvent], E]:
    """Return a function that creates the history entry of an event; its first argument, the view, is unused.

    It sets those fields of `diptych.history.v1.Entry` that the message has, too.

    Args:
        message: the entries' message type.
        record_time: the message's field for the time at which the event was recorded.

    Raises:
        ValueError: the message lacks `version` or the time, or has a field of `Entry` with another type.
    """
    names = _check_fields(message, record_time)
    keys = [(name, key) for name, key in METADATA_KEYS.items() if name in names]
    has_type, has_event = "event_type" in names, "event" in names

    def create_entry(_: Message, event: RecordedEvent) -> E:
        metadata = event.metadata
        values: dict[str, Any] = {name: metadata[key] for name, key in keys if key in metadata}
        values["version"] = event.version
        if has_type:
            values["event_type"] = event.type
        values[record_time] = encode_timestamp(event.recorded_at)
        entry = message(**values)
        if has_event:  # the event as it was recorded, in that version
            fields: Any = entry
            fields.event.type_url = TYPE_URL_PREFIX + event.type
            fields.event.value = event.data
        return entry

    return create_entry


def _check_fields(message: type[Message], record_time: str) -> frozenset[str]:
    """Return the names of the fields that the message shares with `Entry`."""
    own, shared = message.DESCRIPTOR.fields_by_name, Entry.DESCRIPTOR.fields_by_name
    wanted = {name: field for name, field in shared.items() if name in own or name == "version"}
    for name, field in {**wanted, record_time: shared["record_time"]}.items():
        if name not in own or _get_type(own[name]) != _get_type(field):
            raise ValueError(f"{message.DESCRIPTOR.full_name}.{name} must have the type of {field.full_name}")
    return frozenset(wanted)


def _get_type(field: Any) -> tuple[Any, ...]:
    return field.type, field.message_type, field.is_repeated


def entry_time_reader(message: type[Message], record_time: str = "record_time") -> Callable[[bytes], int]:
    """Return a function that returns the time of a serialised entry, in nanoseconds since 1970."""

    def read_entry_time(data: bytes) -> int:
        time: Any = getattr(message.FromString(data), record_time)
        return int(time.ToNanoseconds())

    return read_entry_time


create_entry = entry_factory(Entry)
"""Creates the history entry of an event, for a context whose entries say no more than `Entry`."""
