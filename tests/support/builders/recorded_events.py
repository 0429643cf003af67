"""Events as they were recorded once: their bytes, and what they mean.

The bytes of a version never change once it was released: databases hold them.
`python -m tests.support.builders.recorded_events` writes a file for every event that has none yet; what it writes is for the
author of a new event to check.
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

from command_server.__main__ import CONTEXTS
from command_server.kernel.context import AggregateType, Context, aggregate_types
from command_server.kernel.ports import StoredEvent

FOLDER = Path(__file__).parents[2] / "contract" / "events"


@dataclass(frozen=True)
class Recorded:
    """One file."""

    type: str
    """The full name of the message."""
    data: bytes
    message: dict[str, Any]
    """The message as JSON."""
    domain: dict[str, Any]
    """The domain's event, fields by name."""


def read() -> list[Recorded]:
    """Return all files."""
    found = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]
    return [Recorded(one["type"], b64decode(one["data"]), one["message"], one["domain"]) for one in found]


def event_messages(context: Context) -> list[type[Message]]:
    """Return the messages of a context that are events, of all versions."""
    names = {event.__name__ for d in context.deciders for a in d.aggregates for event in a.events}
    return [
        GetMessageClass(message)
        for module in context.events
        for name, message in module.DESCRIPTOR.message_types_by_name.items()
        if name in names
    ]


def as_domain(aggregates: dict[str, AggregateType], event: StoredEvent) -> dict[str, Any]:
    """Return an event as its domain knows it, fields by name."""
    for aggregate in aggregates.values():
        if aggregate.knows(event.type):
            return json.loads(msgspec.json.encode(aggregate.decode(event)))  # type: ignore[no-any-return]
    raise AssertionError(f"no aggregate knows {event.type}")


def filled(message: Message) -> Message:
    """Return the message with every field set to something of its own."""
    fields: Any = message.DESCRIPTOR.fields
    for number, field in enumerate(fields, 1):
        if field.message_type:
            target = getattr(message, field.name)
            filled(target.add() if field.is_repeated else target)
        elif field.is_repeated:
            getattr(message, field.name).append(f"{field.name} 1")
        else:
            setattr(message, field.name, _value(field, number))
    return message


def _value(field: Any, number: int) -> Any:
    if field.name == "currency_code":
        return "EUR"
    kinds = {field.TYPE_STRING: f"{field.name}-{number}", field.TYPE_BYTES: b"sealed"}
    return kinds.get(field.type, number)


def main() -> None:
    """Write the files that are missing."""
    for context in CONTEXTS:
        aggregates = aggregate_types((context,))
        for kind in event_messages(context):
            name = kind.DESCRIPTOR.full_name
            if not (path := FOLDER / f"{name}.json").exists():
                message = filled(kind())
                data = message.SerializeToString(deterministic=True)
                content = {
                    "type": name,
                    "data": b64encode(data).decode(),
                    "message": MessageToDict(message, preserving_proto_field_name=True),
                    "domain": as_domain(aggregates, StoredEvent(name, data)),
                }
                path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
