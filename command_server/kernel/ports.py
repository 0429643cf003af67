"""What the kernel needs of the world: a store that keeps streams and requests in one transaction."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from command_server.kernel.outcomes import Outcome

RequestKey = tuple[str, str]
"""A caller and the request id it chose: request ids belong to their caller."""


class StoreConflict(Exception):
    """Another writer was first (a new stream, a request id, a deadlock): run again on fresh reads."""


class StoreUnavailable(Exception):
    """The connection was lost or could not be made. Whether a commit under way took effect is unknown."""


@dataclass(frozen=True, slots=True)
class StoredStream:
    """A stream as it is stored: its version, and a cached state that may lag behind it."""

    version: int
    updated_at: datetime
    state: str | None
    state_version: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event read back: its message's full name and bytes."""

    type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """A request id's one effect: what was asked under it, and the answer."""

    type: str
    hash: bytes
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class RequestLookup:
    """What the store remembers of some requests, and which life of the database it is that remembers."""

    incarnation: str
    requests: Mapping[RequestKey, StoredRequest]


@dataclass(frozen=True, slots=True)
class StreamRow:
    """A stream's new row."""

    id: str
    type: str
    version: int
    updated_at: datetime
    state: str
    fingerprint: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event to record."""

    stream: str
    version: int
    type: str
    data: bytes
    metadata: str
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A request to record: the command, its outcome, and who is behind it (the audit)."""

    caller: str
    request_id: str
    type: str
    hash: bytes
    outcome: Outcome
    stream: str
    on_behalf_of: str | None
    correlation_id: str
    causation_id: str | None
    traceparent: str | None
    duration_us: int
    recorded_at: datetime


@dataclass(slots=True)
class Changes:
    """All that a batch of commands writes."""

    streams: list[StreamRow] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)
    requests: list[RequestRow] = field(default_factory=list)


class Transaction(Protocol):
    """One transaction of the store. Its reads see all that was committed before each of them began."""

    async def read_streams(self, streams: Collection[str]) -> Mapping[str, StoredStream]:
        """Return those of the streams that exist; others may change them at once."""

    async def lock_streams(self, streams: Collection[str]) -> Mapping[str, StoredStream]:
        """Return those of the streams that exist; until the end nobody else changes them."""

    async def find_requests(self, keys: Collection[RequestKey]) -> RequestLookup:
        """Return those of the requests that were recorded."""

    async def read_events(self, stream: str, after: int) -> Sequence[StoredEvent]:
        """Return a stream's events above a version, in order."""

    async def write(self, changes: Changes) -> None:
        """Write everything; it takes effect with the commit.

        Raises:
            StoreConflict: a new stream, an event's version or a request id was taken meanwhile.
        """


class EventStore(Protocol):
    """Where streams, events and requests are kept."""

    def begin(self) -> AbstractAsyncContextManager[Transaction]:
        """Open a transaction, committed when the block ends and rolled back when it raises.

        Raises:
            StoreConflict, StoreUnavailable: as their docstrings say; nothing else is worth another try.
        """
