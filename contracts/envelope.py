"""The message format of a recorded event: Protobuf bytes, and headers as in CloudEvents' NATS binding.

Attributes of CloudEvents have the prefix `ce-`, ours `diptych-`; `traceparent` has none.
"""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from contracts import streams

MAX_EVENT_BYTES = 512 * 1024
"""Bytes of one event's data, at most. A command whose event is larger is rejected."""
DEFAULT_MAX_PAYLOAD = 1024 * 1024
"""Bytes of a message with its headers that a NATS server accepts unless it is configured otherwise."""
HEADER_ALLOWANCE = 1024
"""Bytes for the names of all headers, for their values of a bounded size, and for those of a batch."""


class RecordedEvent(msgspec.Struct, frozen=True):
    """A committed event and its metadata.

    A msgspec struct rather than a dataclass, because every process creates one for every event.
    """

    stream: str
    version: int
    type: str
    """The full name of the event's message, for instance `diptych.ordering.v1.OrderPlaced`."""
    data: bytes
    recorded_at: datetime
    position: int
    """Number of the event's row in PostgreSQL: unique, rising within a stream, not in commit order."""
    metadata: Mapping[str, str]
    """`actor`, `on_behalf_of`, `command`, `correlation_id`, `causation_id` and, for a traced command,
    `traceparent`. A key without a value is absent. If a wrong clock recorded the stream's previous event,
    `time_set_aside` holds that event's time, which the time of this event precedes. If its command was
    rejected all the same, `rejected` holds the reason."""

    @property
    def id(self) -> str:
        """`<stream>@<version>`, the event's identity in messages, logs and views."""
        return f"{self.stream}@{self.version}"


def max_data_bytes(max_payload: int, stream: str, type_name: str, metadata: str) -> int:
    """Return the bytes of data that an event may have, so that NATS accepts its message.

    Args:
        max_payload: bytes of a message with its headers that the NATS server accepts.
        stream: the event's stream.
        type_name: the full name of its message.
        metadata: its metadata as JSON, in which no entry is shorter than as a header.
    """
    names = 2 * len(stream) + len(type_name)
    return min(MAX_EVENT_BYTES, max_payload - HEADER_ALLOWANCE - names - len(metadata.encode()))


_decode_metadata = msgspec.json.Decoder(dict[str, str]).decode


def parse_metadata(text: str) -> dict[str, str]:
    """Return an event's metadata; of stored data that is none, the entries that can be headers."""
    try:
        if "\\n" not in text and "\\r" not in text:  # as JSON escapes line ends, which end a header
            return _decode_metadata(text)
        value = msgspec.json.decode(text)
    except msgspec.ValidationError:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {}
    return {
        key: entry
        for key, entry in (value.items() if isinstance(value, dict) else ())
        if key.isidentifier() and isinstance(entry, str) and entry.isprintable()
    }


def to_headers(event: RecordedEvent) -> dict[str, str]:
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
        # Stripped, since some clients of NATS strip what they read, and the signature covers it.
        headers[_METADATA_HEADERS.get(key) or f"diptych-{key.replace('_', '-')}"] = value.strip()
    return headers


_OWN_HEADERS = {"diptych-version", "diptych-position"}
"""The headers with our prefix that become fields of the event rather than metadata."""
_METADATA_HEADERS = {
    key: f"diptych-{key.replace('_', '-')}"
    for key in ("actor", "on_behalf_of", "command", "correlation_id", "causation_id")
} | {"traceparent": "traceparent"}
"""Metadata key to header, for the usual metadata; a lookup is cheaper than converting the name."""
_METADATA_KEYS = {header: key for key, header in _METADATA_HEADERS.items()}


def from_message(subject: str, headers: Mapping[str, str], data: bytes) -> RecordedEvent:
    """Return the event in a message.

    Raises:
        KeyError, ValueError: a header is missing or malformed, so no relay published the message.
    """
    metadata = {}
    for header, value in headers.items():
        if (key := _METADATA_KEYS.get(header)) is not None:
            metadata[key] = value
        elif header.startswith("diptych-") and header not in _OWN_HEADERS:
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
