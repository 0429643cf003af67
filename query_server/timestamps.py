"""Timestamps and periods of requests as integers, so that any two of them can be compared."""

import msgspec
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

NANOS_PER_SECOND = 10**9


class Period(msgspec.Struct, frozen=True):
    """The times from `start` on and before `end`, in nanoseconds since 1970; None is no bound."""

    start: int | None
    end: int | None

    def __str__(self) -> str:
        return " ".join("-" if bound is None else str(bound) for bound in (self.start, self.end))


def read_period(request: Message, start: str, end: str) -> Period:
    """Return the period between two optional Timestamps of a request, given by their field names."""
    return Period(
        *(to_nanoseconds(getattr(request, name)) if request.HasField(name) else None for name in (start, end))
    )


def to_nanoseconds(time: Timestamp) -> int:
    """Return a time in nanoseconds since 1970, even one outside the calendar's range.

    Protobuf's own `ToNanoseconds` raises for those, and callers may send them.
    """
    return time.seconds * NANOS_PER_SECOND + time.nanos
