"""The metadata of the current call. It is read once per call, since gRPC builds it again on every access."""

from collections.abc import Sequence
from contextvars import ContextVar

Metadata = Sequence[tuple[str, str | bytes]]

_METADATA: ContextVar[Metadata] = ContextVar("metadata", default=())


STALENESS = "diptych-staleness-ms"
"""Trailing metadata of a query: an upper bound on the age of the data, in milliseconds."""


def set_current(metadata: Metadata) -> None:
    """Set the metadata for the rest of the running task; gRPC runs every call in a task of its own."""
    _METADATA.set(metadata)


def current() -> Metadata:
    """Return the metadata of the current call, with keys in lower case."""
    return _METADATA.get()
