"""A recorded event as it travels: Protobuf bytes, and headers after CloudEvents' NATS binding."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from contracts import streams


class RecordedEvent(msgspec.Struct, frozen=True):
    """An event that is committed: what happened, to which aggregate, when, by whom, on which command.

    A struct of msgspec rather than a dataclass: it is made for every event, in every process.
    """

    stream: str
    version: int
    type: str
    """The full name of the event's message, for instance `diptych.ordering.v1.OrderPlaced`."""
    data: bytes
    recorded_at: datetime
    position: int
    """Where PostgreSQL recorded it: unique, rising within a stream, not in order of commits."""
    metadata: Mapping[str, str]
    """`actor`, `correlation_id`, `causation_id`, `command` and, where the command was traced,
    `traceparent`. Absent values are absent keys."""

    @property
    def id(self) -> str:
        """The event's identity everywhere: `<stream>@<version>`."""
        return f"{self.stream}@{self.version}"


def to_headers(event: RecordedEvent) -> dict[str, str]:
    """Return the message headers of an event."""
    headers = {
        "ce-specversion": "1.0",
        "ce-id": event.id,
        "ce-type": event.type,
        "ce-source": f"/diptych/{event.stream.partition('.')[0]}",
        "ce-subject": streams.aggregate_id(event.stream),
        "ce-time": event.recorded_at.isoformat(),
        "diptych-version": str(event.version),
        "diptych-position": str(event.position),
    }
    for key, value in event.metadata.items():
        headers["traceparent" if key == "traceparent" else f"diptych-{key.replace('_', '-')}"] = value
    return headers


_ENVELOPE = {"diptych-version", "diptych-position"}
_METADATA = {
    f"diptych-{key}": key.replace("-", "_")
    for key in ("actor", "on-behalf-of", "command", "correlation-id", "causation-id")
}
"""The headers of the metadata that most events have, and what they are called there."""


def from_message(subject: str, headers: Mapping[str, str], data: bytes) -> RecordedEvent:
    """Return the event that a message carries.

    Raises:
        KeyError, ValueError: the message was not published by a relay.
    """
    metadata = {}
    for header, value in headers.items():
        if (key := _METADATA.get(header)) is not None:
            metadata[key] = value
        elif header == "traceparent":
            metadata[header] = value
        elif header.startswith("diptych-") and header not in _ENVELOPE:
            metadata[header.removeprefix("diptych-").replace("-", "_")] = value
    return RecordedEvent(
        stream=streams.stream_of_subject(subject),
        version=int(headers["diptych-version"]),
        type=headers["ce-type"],
        data=data,
        recorded_at=datetime.fromisoformat(headers["ce-time"]),
        position=int(headers["diptych-position"]),
        metadata=metadata,
    )
