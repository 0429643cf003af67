"""The messages of events in the stream: encoding, size, and comparison with the recorded event."""

from collections.abc import Sequence

from contracts import streams
from contracts.envelope import RecordedEvent, to_headers
from contracts.feed_signatures import SIGNATURE, sign
from contracts.key_ring import Key
from runtime.jetstream import OutgoingMessage

USUAL_HEADER_BYTES = 64 * 1024
"""Bytes that no event's headers exceed; smaller events need no measuring."""
ADDED_HEADER_BYTES = 300
"""Bytes of the headers of the signature and the fence, with some to spare."""

_EVENTS = streams.SUBJECTS.removesuffix(">")


def feed_subjects(epoch: str) -> str:
    """Return the subjects to which the events of an epoch are published; the stream maps them to its own."""
    return f"diptych.feed.{epoch}.>"


def encode_events(key: Key, epoch: str, events: Sequence[RecordedEvent], after: int) -> list[OutgoingMessage]:
    """Return the signed messages of events.

    Args:
        key: that signs.
        epoch: of the stream.
        events: in order.
        after: the sequence that the first message follows.
    """
    prefix = feed_subjects(epoch).removesuffix(">")
    messages = []
    for sequence, event in enumerate(events, after + 1):
        subject, headers = streams.subject(event.stream), to_headers(event)
        headers[SIGNATURE] = sign(key, epoch, sequence, subject, headers, event.data)
        messages.append(OutgoingMessage(prefix + subject.removeprefix(_EVENTS), event.data, headers))
    return messages


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
    return len(f"NATS/1.0\r\n{lines}\r\n".encode()) + ADDED_HEADER_BYTES + len(event.data)


def fits(event: RecordedEvent, max_payload: int) -> bool:
    """Return whether a server with this limit accepts the event's message."""
    return len(event.data) + USUAL_HEADER_BYTES <= max_payload or measure_message(event) <= max_payload
