"""Names of event streams, and their subjects in JetStream.

A stream is named `<context>.<aggregate>.<id>`; the first two parts are its type. Its events are published
under the subject `diptych.events.<partition>.<name>`. The partition is a hash of the id, so all events of an
aggregate are in one partition.
"""

import re
from typing import Literal
from zlib import crc32

PARTITIONS = 16
"""The number of partitions. It is fixed: another number would move aggregates to other partitions."""
JETSTREAM = "DIPTYCH"
"""The name of the JetStream stream that holds all events."""
SUBJECTS = "diptych.events.>"
WAKE_SUBJECT = "diptych.wake"
"""Subject of the core NATS message that wakes the relay after a commit."""
RECREATE_SUBJECT = "diptych.recreate"
"""Subject of the core NATS message with which a reader that needs removed messages asks the relay to recreate
the stream. Its data is the stream's epoch."""
PUBLISHED_SUBJECT = "diptych.published"
"""Subject of the core NATS request to which the leading relay replies once all events that were committed
before the request are in the stream: `<epoch>/<sequence>`, the stream's epoch and its last sequence.
A relay that does not lead, or cannot publish, does not reply."""

VALID_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def stream_name(stream_type: str, aggregate_id: str) -> str:
    """Return the name of an aggregate's stream, for instance `ordering.order.o-1`."""
    return f"{stream_type}.{aggregate_id}"


def stream_type(stream: str) -> str:
    """Return a stream's type, for instance `ordering.order`."""
    return stream.rpartition(".")[0]


def aggregate_id(stream: str) -> str:
    """Return the id of the stream's aggregate, for instance `o-1`."""
    return stream.rpartition(".")[2]


def partition(aggregate_id: str) -> int:
    """Return an aggregate's partition, 0 to PARTITIONS - 1."""
    return crc32(aggregate_id.encode()) % PARTITIONS


def subject(stream: str) -> str:
    return f"diptych.events.{partition(aggregate_id(stream))}.{stream}"


def partition_subject(partition: int | Literal["*"], stream_type: str) -> str:
    """Return the subject filter of all streams of one type in one partition; `*` means any partition."""
    return f"diptych.events.{partition}.{stream_type}.*"


def stream_of_subject(subject: str) -> str:
    return subject.split(".", 3)[3]
