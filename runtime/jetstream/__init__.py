"""JetStream access: a lasting connection, the event stream, fenced batches, and readers that detect gaps."""

from runtime.jetstream.batch_publisher import BatchIncomplete, BatchPublisher, Fenced, OutgoingMessage
from runtime.jetstream.connection import UNREACHABLE, Connection, connect
from runtime.jetstream.cursor import Cursor
from runtime.jetstream.event_decoder import (
    FeedVerifier,
    KeysMissing,
    StreamReplaced,
    decode_event,
    is_signed,
    report_foreign,
)
from runtime.jetstream.event_log import EventMessage, Limits
from runtime.jetstream.nats_client import Receive
from runtime.jetstream.publication import Publication, PublicationClock, request_recreation
from runtime.jetstream.reader import ReaderLost, StreamReader
from runtime.jetstream.shared_reader import SharedReader, StreamCheck
from runtime.jetstream.stream import (
    Message,
    StreamIdentity,
    read_last_message,
    read_stream_identity,
)
from runtime.jetstream.subject import SubjectReader

__all__ = [
    "UNREACHABLE",
    "BatchIncomplete",
    "BatchPublisher",
    "Connection",
    "Cursor",
    "EventMessage",
    "FeedVerifier",
    "Fenced",
    "KeysMissing",
    "Limits",
    "Message",
    "OutgoingMessage",
    "Publication",
    "PublicationClock",
    "ReaderLost",
    "Receive",
    "SharedReader",
    "StreamCheck",
    "StreamIdentity",
    "StreamReader",
    "StreamReplaced",
    "SubjectReader",
    "connect",
    "decode_event",
    "is_signed",
    "read_last_message",
    "read_stream_identity",
    "report_foreign",
    "request_recreation",
]
