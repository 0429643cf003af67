"""The message of a recorded event: its fields, or its bytes where this release cannot decode them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from diptych.operations.v1.records_pb2 import Event
from google.protobuf.descriptor_pool import Default
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass

from contracts.envelope import RecordedEvent
from contracts.personal_fields import mask_personal
from operations_server.records.content import Content
from operations_server.records.database import Database
from operations_server.records.event_filter import parse_metadata

MAX_FIELDS_BYTES = 1_500_000
"""Bytes of an event's fields in a response. A message of Protobuf grows when it becomes a Struct."""
MAX_DECODED_BYTES = 100_000
"""Bytes of an event that is decoded. Larger ones would delay all other questions while they are decoded."""
_METADATA = ("actor", "on_behalf_of", "command", "correlation_id", "causation_id")


def build_event(row: Any, data: bytes, content: Content = Content.MASKED) -> Event:
    """Return the message of a row of `events`."""
    event = Event(
        id=f"{row['stream']}@{row['version']}",
        position=row["position"],
        stream=row["stream"],
        version=row["version"],
        type=row["type"],
    )
    event.record_time.FromDatetime(row["recorded_at"])
    _set_metadata(event, parse_metadata(row["metadata"]))
    if content is Content.NONE:
        return event
    try:
        _decode(event, data, content)
    except Exception as error:  # the bytes may be anything, and the other events are shown
        event.ClearField("data")
        event.error = make_printable(f"{type(error).__name__}: {error}")
        if content is Content.FULL:  # nobody can tell which of the bytes are personal
            event.encoded_data = data
    return event


async def open_data(database: Database, row: Any, data: bytes, content: Content) -> bytes:
    """Return the data of a row of `events`, in clear for those who may see all of it.

    Args:
        database: has the keys.
        row: of the event.
        data: as it was recorded.
        content: how much of the event is shown.
    """
    if content is not Content.FULL:
        return data
    event = RecordedEvent(
        row["stream"], row["version"], row["type"], data, row["recorded_at"], row["position"], {}
    )
    (opened,) = await database.open([event])
    return opened.data


def _set_metadata(event: Event, metadata: Mapping[str, Any]) -> None:
    for name in _METADATA:
        if (value := metadata.get(name)) is not None:
            setattr(event, name, make_printable(str(value)))
    event.request_id = event.causation_id
    if (time := _parse_time(metadata.get("time_set_aside"))) is not None:
        event.time_set_aside.FromDatetime(time)
    parts = str(metadata.get("traceparent", "")).split("-")
    if len(parts) > 2:
        event.trace_id = make_printable(parts[1])


def _parse_time(text: Any) -> datetime | None:
    """Return a time of the metadata, or None for anything else."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def _decode(event: Event, data: bytes, content: Content) -> None:
    """Set an event's fields.

    Raises:
        Exception: the type is unknown, the bytes are no such message, or the fields are too large.
    """
    if len(data) > MAX_DECODED_BYTES:
        raise ValueError(f"the event has {len(data)} bytes, too many to be decoded here")
    message = GetMessageClass(Default().FindMessageTypeByName(event.type)).FromString(data)
    fields = MessageToDict(message, preserving_proto_field_name=True)
    if content is Content.MASKED:
        mask_personal(message, fields)
    event.data.SetInParent()  # also without fields
    event.data.update(fields)
    if (size := event.data.ByteSize()) > MAX_FIELDS_BYTES:
        raise ValueError(f"the event's fields have {size} bytes, too many for a response")


def make_printable(text: str) -> str:
    """Return a text that Protobuf accepts: an unpaired surrogate is shown as its escape sequence."""
    return text.encode(errors="backslashreplace").decode()
