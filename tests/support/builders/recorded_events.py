"""Recorded examples of every event: its bytes, and the message and domain event that they decode to.

Databases contain events of every released version, so `data` and `message` of a file never change.
`make recorded-events` writes a file for every event without one, and brings `domain` of the others up to date
with the domain classes and upcasters. Check the difference before you commit it.
"""

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from google.protobuf.descriptor_pool import Default
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


def read_examples(folder: Path = FOLDER) -> list[RecordedExample]:
    return [_read_example(path) for path in sorted(folder.glob("*.json"))]


def _read_example(path: Path) -> RecordedExample:
    content = json.loads(path.read_text())
    return RecordedExample(content["type"], b64decode(content["data"]), content["message"], content["domain"])


def list_event_names(context: Context) -> list[str]:
    """Return the full names of a context's events in all versions, without the messages that are parts."""
    return [
        name
        for decider in context.deciders
        for aggregate in decider.aggregates
        for event in aggregate.events
        if (newest := context.events.find_newest(event.__name__))
        for name in context.events.list_versions(newest)
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
    if field.enum_type is not None:
        values = field.enum_type.values
        return values[number % len(values)].number
    kinds = {field.TYPE_STRING: f"{field.name}-{number}", field.TYPE_BYTES: b"sealed"}
    return kinds.get(field.type, number)


def matches(recorded: Any, decoded: Any) -> bool:
    """Return whether a decoded value equals the recorded one; a field that was not recorded has a default."""
    if isinstance(recorded, dict) and isinstance(decoded, dict):
        return recorded.keys() <= decoded.keys() and all(
            matches(recorded[name], value) if name in recorded else _is_default(value)
            for name, value in decoded.items()
        )
    if isinstance(recorded, list) and isinstance(decoded, list):
        return len(recorded) == len(decoded) and all(map(matches, recorded, decoded))
    return bool(recorded == decoded)


def _is_default(value: Any) -> bool:
    return all(map(_is_default, value.values())) if isinstance(value, dict) else not value


class RecordedDataChanged(Exception):
    """The recorded bytes of an event, or the message that they decode to, differ from those in its file."""


def write_example(folder: Path, example: RecordedExample) -> None:
    """Write an example's file; where it exists, only `domain` may change.

    Raises:
        RecordedDataChanged: anything else would change. Nothing is written.
    """
    path = folder / f"{example.type}.json"
    if path.exists():
        existing = _read_example(path)
        if replace(existing, domain=example.domain) != example:
            raise RecordedDataChanged(f"{path.name}: recorded bytes never change; add a new version instead")
        if matches(existing.domain, example.domain):
            return
    content = {
        "type": example.type,
        "data": b64encode(example.data).decode(),
        "message": example.message,
        "domain": example.domain,
    }
    path.write_text(json.dumps(content, indent=2) + "\n")


def main() -> None:
    """Write the missing files, and bring the domain events of the others up to date."""
    examples = {example.type: example for example in read_examples()}
    for context in CONTEXTS:
        aggregates = aggregate_types((context,))
        for name in list_event_names(context):
            data = examples[name].data if name in examples else _encode_new(name)
            write_example(FOLDER, _decode_example(name, data, aggregates))


def _encode_new(name: str) -> bytes:
    return fill_fields(_get_message(name)()).SerializeToString(deterministic=True)


def _decode_example(name: str, data: bytes, aggregates: dict[str, AggregateType]) -> RecordedExample:
    message = MessageToDict(_get_message(name).FromString(data), preserving_proto_field_name=True)
    return RecordedExample(name, data, message, decode_fields(aggregates, StoredEvent(name, data)))


def _get_message(name: str) -> type[Message]:
    return GetMessageClass(Default().FindMessageTypeByName(name))


if __name__ == "__main__":
    main()
