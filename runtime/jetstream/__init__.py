"""JetStream as this project uses it: a connection kept up, one stream, readers that notice loss."""

from runtime.jetstream.connection import UNREACHABLE, Connection, connect
from runtime.jetstream.reader import ReaderLost, StreamReader
from runtime.jetstream.stream import Message, StreamIdentity, read_subject, stream_identity

__all__ = [
    "UNREACHABLE",
    "Connection",
    "Message",
    "ReaderLost",
    "StreamIdentity",
    "StreamReader",
    "connect",
    "read_subject",
    "stream_identity",
]
