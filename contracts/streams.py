"""How a stream of events is named, and where it lies in JetStream.

A stream's name is `<context>.<aggregate>.<id>`, its type the first two parts. Its events have the subject
`diptych.events.<partition>.<name>`; the partition is a hash of the id, so one aggregate stays in one.
"""

import re
from zlib import crc32

PARTITIONS = 16
"""How many partitions the events have; fixed, since changing it would move aggregates between them."""
JETSTREAM = "DIPTYCH"
"""The name of the JetStream stream that holds all events."""
SUBJECTS = "diptych.events.>"
WAKE_SUBJECT = "diptych.wake"
"""A core NATS message here, after a commit, tells the relay that the outbox holds something new."""

VALID_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def stream_name(stream_type: str, aggregate_id: str) -> str:
    """Return the name of the stream of one aggregate, for instance `ordering.order.o-1`."""
    return f"{stream_type}.{aggregate_id}"


def stream_type(stream: str) -> str:
    """Return a stream's type, for instance `ordering.order`."""
    return stream.rpartition(".")[0]


def aggregate_id(stream: str) -> str:
    """Return the id of the aggregate whose stream this is, for instance `o-1`."""
    return stream.rpartition(".")[2]


def partition(aggregate_id: str) -> int:
    """Return the partition of an aggregate, 0 to PARTITIONS - 1."""
    return crc32(aggregate_id.encode()) % PARTITIONS


def subject(stream: str) -> str:
    """Return the subject that a stream's events are published under."""
    return f"diptych.events.{partition(aggregate_id(stream))}.{stream}"


def partition_subject(partition: int, stream_type: str) -> str:
    """Return the subject filter of all streams of one type in one partition."""
    return f"diptych.events.{partition}.{stream_type}.*"


def partition_of_subject(subject: str) -> int:
    """Return the partition that a subject names."""
    return int(subject.split(".", 3)[2])


def stream_of_subject(subject: str) -> str:
    """Return the stream that a subject names."""
    return subject.split(".", 3)[3]
