"""Recorded examples of every event: its bytes, and the message and domain event that they decode to.

Databases contain events of every released version, so the bytes of a version never change.
`python -m tests.support.builders.recorded_events` writes a file for every event without one. Check a new file
before you commit it.
"""

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from command_server.kernel.context import AggregateType, Context, aggregate_types
from command_server.kernel.ports import StoredEvent
from tests.support.harness.contexts import CONTEXTS

FOLDER = Path(__file__).parents[2] / "contract" / "events"


@dataclass(frozen=True)
class RecordedExample:
    """The content of one file."""

    type: str
    """The message's full name."""
    data: bytes
    message: dict[str, Any]
    """The message as JSON."""
    domain: dict[str, Any]
    """The domain event's fields by name."""


def read_examples() -> list[RecordedExample]:
    contents = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]
    return [
        RecordedExample(content["type"], b64decode(content["data"]), content["message"], content["domain"])
        for content in contents
    ]


def list_event_messages(context: Context) -> list[type[Message]]:
    """Return the event messages of a context in all versions."""
    names = {event.__name__ for d in context.deciders for a in d.aggregates for event in a.events}
    return [
        GetMessageClass(message)
        for module in context.events
        for name, message in module.DESCRIPTOR.message_types_by_name.items()
        if name in names
    ]


def decode_fields(aggregates: dict[str, AggregateType], event: StoredEvent) -> dict[str, Any]:
    """Return the fields of the domain event by name."""
    for aggregate in aggregates.values():
        if aggregate.decodes(event.type):
            return json.loads(msgspec.json.encode(aggregate.decode(event)))  # type: ignore[no-any-return]
    raise AssertionError(f"{event.type}: not an event of any aggregate")


def fill_fields(message: Message) -> Message:
    """Set every field of a message to a value of its own, and return the message."""
    fields: Any = message.DESCRIPTOR.fields
    for number, field in enumerate(fields, 1):
        if field.message_type:
            target = getattr(message, field.name)
            fill_fields(target.add() if field.is_repeated else target)
        elif field.is_repeated:
            getattr(message, field.name).append(f"{field.name} 1")
        else:
            setattr(message, field.name, _make_value(field, number))
    return message


def _make_value(field: Any, number: int) -> Any:
    if field.name == "currency_code":
        return "EUR"
    kinds = {field.TYPE_STRING: f"{field.name}-{number}", field.TYPE_BYTES: b"sealed"}
    return kinds.get(field.type, number)


def main() -> None:
    """Write the missing files."""
    for context in CONTEXTS:
        aggregates = aggregate_types((context,))
        for kind in list_event_messages(context):
            name = kind.DESCRIPTOR.full_name
            if not (path := FOLDER / f"{name}.json").exists():
                message = fill_fields(kind())
                data = message.SerializeToString(deterministic=True)
                content = {
                    "type": name,
                    "data": b64encode(data).decode(),
                    "message": MessageToDict(message, preserving_proto_field_name=True),
                    "domain": decode_fields(aggregates, StoredEvent(name, data)),
                }
                path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
