"""The messages of events in the stream: encoding, size, and comparison with the recorded event."""

from collections.abc import Sequence

from contracts import streams
from contracts.envelope import RecordedEvent, from_message, to_headers
from runtime.jetstream import Message, OutgoingMessage

MAX_POSITION = 2**63 - 1
USUAL_HEADER_BYTES = 64 * 1024
"""Bytes that no event's headers exceed; smaller events need no measuring."""
FENCE_HEADER_BYTES = 200
"""Bytes of the header of the fence, with some to spare."""

_EVENTS = streams.SUBJECTS.removesuffix(">")


def feed_subjects(epoch: str) -> str:
    """Return the subjects to which the events of an epoch are published; the stream maps them to its own."""
    return f"diptych.feed.{epoch}.>"


def encode_events(epoch: str, events: Sequence[RecordedEvent]) -> list[OutgoingMessage]:
    prefix = feed_subjects(epoch).removesuffix(">")
    return [
        OutgoingMessage(
            prefix + streams.subject(event.stream).removeprefix(_EVENTS), event.data, to_headers(event)
        )
        for event in events
    ]


def decode_event(message: Message) -> RecordedEvent | None:
    """Return the message's event, or None if no relay can have published the message."""
    try:
        event = from_message(message.subject, message.headers, message.data)
    except (KeyError, ValueError, IndexError):
        return None
    return event if 0 < event.position <= MAX_POSITION else None


def is_copy(event: RecordedEvent, recorded: RecordedEvent | None) -> bool:
    """Return whether an event from the stream equals the event recorded at its position."""
    if recorded is None:
        return False
    return (event.stream, event.version, event.type, event.data) == (
        recorded.stream,
        recorded.version,
        recorded.type,
        recorded.data,
    )


def measure_message(event: RecordedEvent) -> int:
    """Return the bytes of an event's message with its headers, as NATS counts them."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in to_headers(event).items())
    return len(f"NATS/1.0\r\n{lines}\r\n".encode()) + FENCE_HEADER_BYTES + len(event.data)


def fits(event: RecordedEvent, max_payload: int) -> bool:
    """Return whether a server with this limit accepts the event's message."""
    return len(event.data) + USUAL_HEADER_BYTES <= max_payload or measure_message(event) <= max_payload
