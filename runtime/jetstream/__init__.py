"""JetStream access: a lasting connection, the event stream, fenced batches, and readers that detect gaps."""

from runtime.jetstream.batch_publisher import BatchIncomplete, BatchPublisher, Fenced, OutgoingMessage
from runtime.jetstream.connection import UNREACHABLE, Connection, connect
from runtime.jetstream.cursor import Cursor
from runtime.jetstream.event_decoder import decode_event
from runtime.jetstream.event_log import EventMessage, Limits
from runtime.jetstream.nats_client import Receive
from runtime.jetstream.publication import Publication, PublicationClock
from runtime.jetstream.reader import ReaderLost, StreamReader
from runtime.jetstream.shared_reader import SharedReader, StreamCheck
from runtime.jetstream.stream import (
    Message,
    StreamIdentity,
    read_last_message,
    read_stream_identity,
    request_recreation,
)
from runtime.jetstream.subject import SubjectReader

__all__ = [
    "UNREACHABLE",
    "BatchIncomplete",
    "BatchPublisher",
    "Connection",
    "Cursor",
    "EventMessage",
    "Fenced",
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
    "SubjectReader",
    "connect",
    "decode_event",
    "read_last_message",
    "read_stream_identity",
    "request_recreation",
]
