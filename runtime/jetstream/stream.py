"""The stream of all events: which one it is, and the events of a single aggregate in it."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from contracts import streams

EPOCH = "diptych-epoch"
INCARNATION = "diptych-incarnation"
COMPLETE = "diptych-complete"


class Message(msgspec.Struct, frozen=True):
    """One message of the stream."""

    subject: str
    headers: Mapping[str, str]
    data: bytes
    sequence: int
    pending: int
    """How many messages for this reader lay behind it when it was sent; 0 where no reader read it."""
    published_at: datetime | None
    """When JetStream stored it."""


@dataclass(frozen=True)
class StreamIdentity:
    """Which stream this is, from its metadata, and what it holds."""

    epoch: str
    """A UUID, set when the stream is made: sequences of another epoch mean nothing here."""
    incarnation: str
    """A UUID, the database's whose events these are; set anew when that is restored."""
    complete: bool
    """Whether a stream that was made anew holds all earlier events already."""
    first_sequence: int
    last_sequence: int
    messages: int
    created: datetime | None

    @property
    def intact(self) -> bool:
        """Whether it still holds every message from the first sequence to the last."""
        return self.messages == self.last_sequence


async def stream_identity(js: JetStreamContext) -> StreamIdentity | None:
    """Return what the stream says about itself, or None where there is none that a relay made.

    Raises:
        nats.errors.Error: JetStream cannot be reached.
    """
    try:
        info = await js.stream_info(streams.JETSTREAM)
    except NotFoundError:
        return None
    metadata = info.config.metadata or {}
    if EPOCH not in metadata:
        return None
    return StreamIdentity(
        epoch=metadata[EPOCH],
        incarnation=metadata.get(INCARNATION, ""),
        complete=metadata.get(COMPLETE) == "true",
        first_sequence=info.state.first_seq,
        last_sequence=info.state.last_seq,
        messages=info.state.messages,
        created=info.created,
    )


async def read_subject(js: JetStreamContext, subject: str, after: int = 0) -> AsyncIterator[Message]:
    """Yield the messages of one exact subject, which is one aggregate, after a sequence, oldest first.

    Raises:
        nats.errors.Error: JetStream cannot be reached, or there is no stream.
    """
    while True:
        try:
            found = await js.get_msg(
                streams.JETSTREAM, seq=after + 1, subject=subject, direct=True, next=True
            )
        except NotFoundError:
            return
        after = found.seq or 0
        yield Message(subject, found.headers or {}, found.data or b"", after, 0, found.time)
