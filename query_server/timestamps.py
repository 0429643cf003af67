"""Timestamps of requests as integers, so that any two of them can be compared."""

from google.protobuf.timestamp_pb2 import Timestamp

NANOS_PER_SECOND = 10**9


def to_nanoseconds(time: Timestamp) -> int:
    """Return a time in nanoseconds since 1970, even one outside the calendar's range.

    Protobuf's own `ToNanoseconds` raises for those, and callers may send them.
    """
    return time.seconds * NANOS_PER_SECOND + time.nanos
