"""Skipped events: the relay's replies to projectors, and the copy in Redis.

How it works. PostgreSQL has the truth (`skipped_events`), which projectors cannot read. A projector asks any
relay over NATS, page by page, and keeps the reply in Redis, in the hash `View.skips`, outside of all builds
and generations: a field `<stream>@<version>` for each event, and the field INCARNATION. The copy is valid
only for the incarnation of the database that this field names. Events are added to it, and never removed.
"""

from collections.abc import Sequence

import msgspec

SKIPS_SUBJECT = "diptych.skips"
"""Subject of the core NATS request to which relays reply with the skipped events of a projection."""
INCARNATION = "incarnation"
"""The field of the copy in Redis that makes it valid."""
PAGE_SIZE = 1_000
"""Events in a reply, at most."""


class SkipsRequest(msgspec.Struct, frozen=True):
    """A request for skipped events.

    Args:
        projection: the projection's name.
        after: the number of the last event of the previous page; 0 for the first page.
    """

    projection: str
    after: int = 0


class SkippedEvent(msgspec.Struct, frozen=True, array_like=True):
    """An event that a projection steps over, and its number in the table."""

    number: int
    stream: str
    version: int


class SkipsReply(msgspec.Struct, frozen=True):
    """A page of skipped events; the last one has fewer than PAGE_SIZE.

    Args:
        incarnation: of the database.
        events: in the order of their numbers.
    """

    incarnation: str
    events: Sequence[SkippedEvent]


encode = msgspec.json.Encoder().encode
decode_request = msgspec.json.Decoder(SkipsRequest).decode
decode_reply = msgspec.json.Decoder(SkipsReply).decode


def name_field(stream: str, version: int) -> str:
    """Return the field of an event in the copy."""
    return f"{stream}@{version}"


def parse_field(field: str) -> tuple[str, int] | None:
    """Return the stream and version of a field; None for anything else."""
    stream, _, version = field.rpartition("@")
    return (stream, int(version)) if stream and version.isascii() and version.isdecimal() else None
