"""The metadata that a call came with, made once: gRPC makes all of it anew each time that it is asked."""

from collections.abc import Sequence
from contextvars import ContextVar

Metadata = Sequence[tuple[str, str | bytes]]

_METADATA: ContextVar[Metadata] = ContextVar("metadata", default=())


def enter(metadata: Metadata) -> None:
    """Make this the metadata for the rest of the running task, which gRPC starts anew for every call."""
    _METADATA.set(metadata)


def of_call() -> Metadata:
    """Return the metadata of the call under way: keys in lower case, and their values."""
    return _METADATA.get()
