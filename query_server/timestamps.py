"""Times as requests give them, in a form that can be compared with any other time."""

from google.protobuf.timestamp_pb2 import Timestamp

from query_server.counters import NANOS


def instant(time: Timestamp) -> int:
    """Return a time in nanoseconds since 1970; any time, even one that no calendar has."""
    return time.seconds * NANOS + time.nanos
