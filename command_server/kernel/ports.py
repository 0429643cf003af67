"""The kernel's port: a transactional store of streams, events and requests."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import msgspec

from command_server.kernel.outcomes import Outcome
from contracts.subject_keys import WrappedKey

RequestKey = tuple[str, str]
"""Caller and request id. Each caller has its own namespace of ids."""


class StoreConflict(Exception):
    """A concurrent writer took a stream, version or request id, or won a deadlock. Retry on fresh reads."""

    retry_after = 1.0
    """Seconds after which another attempt makes sense."""


class StoreLocked(StoreConflict):
    """Another transaction holds a lock for longer than writers do. Nothing was written."""


class StoreUnavailable(Exception):
    """The connection was lost or could not be made. A commit in progress may have taken effect.

    Args:
        text: the error, for the log.
        cause: why, for callers, in UPPER_SNAKE_CASE; empty if the store is simply unreachable.
    """

    def __init__(self, text: str = "", cause: str = "") -> None:
        super().__init__(text)
        self.cause = cause

    retry_after = 1.0
    """Seconds after which another attempt makes sense."""


class StoreFailed(Exception):
    """The store could not execute a statement, for example because its data are damaged. Nothing was written.

    One command may be the reason: others may read sound data.

    Args:
        text: the error, for the log.
        cause: why, for callers, in UPPER_SNAKE_CASE.
    """

    def __init__(self, text: str = "", cause: str = "") -> None:
        super().__init__(text)
        self.cause = cause

    retry_after = 1.0
    """Seconds after which another attempt makes sense."""


class StoreFull(StoreUnavailable):
    """The store has no disk space or memory left. The transaction has not taken effect."""


@dataclass(frozen=True, slots=True)
class StoredStream:
    """A stored stream: its version, and a snapshot that may be older."""

    version: int
    updated_at: datetime
    state: str | None
    """The snapshot as JSON, in clear; None if there is none that can be read."""
    state_version: int
    """The version that the snapshot was taken at."""
    fingerprint: str
    digest: bytes | None = None
    """Of the last event that has one."""


class StoredEvent(msgspec.Struct, frozen=True, gc=False):
    """A stored event: the full name of its message, and the message's bytes."""

    type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """A snapshot of a long stream that is kept beside the one in the stream's row."""

    version: int
    state: str
    """The state as JSON, in clear."""
    subjects: Sequence[str] = ()
    """The persons whose data it holds, with whose keys it is stored."""


class StoredRequest(msgspec.Struct, frozen=True, gc=False):
    """A recorded request and its outcome."""

    type: str
    hash: bytes
    """See `command_server.kernel.request_hashes`."""
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class RequestLookup:
    """Previously recorded requests, and the database's incarnation and time."""

    incarnation: str
    requests: Mapping[RequestKey, StoredRequest]
    now: datetime
    """The store's time at the lookup, in UTC. No earlier writer of the locked streams had a later one."""
    kept_since: datetime | None = None
    """Records of request ids from before this time may have been removed; None: no record was."""


class StreamRow(msgspec.Struct, frozen=True, gc=False):
    """A stream to insert (`is_new`) or update."""

    id: str
    type: str
    version: int
    updated_at: datetime
    state: str | None
    """The snapshot as JSON, sealed if it holds data of persons; None for none."""
    fingerprint: str
    is_new: bool
    digest: bytes = b""
    """Of the last event; empty if no event of the stream has one."""


class EventRow(msgspec.Struct, frozen=True, gc=False):
    """An event to insert."""

    stream: str
    version: int
    type: str
    data: bytes
    metadata: str
    recorded_at: datetime
    digest: bytes = b""
    """The link of its stream's chain (`contracts.audit.digests`)."""


class RequestRow(msgspec.Struct, frozen=True, gc=False):
    """A request to insert: the answer to its repetitions, and its row of the audit."""

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


MAX_READ_BYTES = 1_000_000
"""Bytes of events that are read at once; the event that reaches them is the last one."""


@dataclass(slots=True)
class Changes:
    """The rows that a batch of commands writes."""

    streams: list[StreamRow] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)
    requests: list[RequestRow] = field(default_factory=list)
    kept_snapshots: list[str] = field(default_factory=list)
    """Streams whose stored snapshot, of other code, is kept before `streams` replaces it."""


class Transaction(Protocol):
    """One transaction of the store. Each read sees everything that was committed before the read began."""

    async def read_streams(self, streams: Collection[str]) -> Mapping[str, StoredStream]:
        """Return the existing streams, not locked: other transactions may change them at any time."""

    async def lock_and_find(
        self, streams: Collection[str], keys: Collection[RequestKey], *, skip_locked: bool = False
    ) -> tuple[Mapping[str, StoredStream], RequestLookup]:
        """Lock streams against other writers until the transaction ends, and look for recorded requests.

        Return the streams that exist, and the lookup. Its time is later than the locks. Requests that another
        writer has recorded in the last moments before may be missing; `commit` then raises `StoreConflict`.

        Args:
            streams: their names.
            keys: the requests.
            skip_locked: leave out the streams that another transaction has locked, instead of waiting.

        Raises:
            StoreLocked: another transaction has locked one of them, or all, for too long.
        """

    async def read_events(self, after: Mapping[str, int]) -> Mapping[str, Sequence[StoredEvent]]:
        """Return the events above these versions, in order, by stream; streams without any are omitted.

        They end with the event that reaches MAX_READ_BYTES, in order of the streams' names. Personal data is
        in clear.
        """

    async def obtain_keys(self, new: Mapping[str, WrappedKey]) -> Mapping[str, WrappedKey]:
        """Return the keys of persons, by subject. One that another transaction is making may be missing.

        Args:
            new: keys for those of the subjects that have none; they are stored with the commit.
        """

    async def commit(self, changes: Changes) -> None:
        """Write all rows and commit: when this returns, they are durable.

        Raises:
            StoreConflict: another transaction has taken a new stream, an event's version or a request id.
            StoreUnavailable: the rows may have been written.
        """


class EventStore(Protocol):
    """A store of streams, events and requests."""

    def begin(self) -> AbstractAsyncContextManager[Transaction]:
        """Open a transaction. It rolls back at the end of the block unless `commit` was called.

        Raises:
            StoreConflict, StoreLocked, StoreFailed, StoreUnavailable: retry. Any other error would occur
                again.
        """

    async def read_chunk(self, stream: str, after: int, limit: int) -> Sequence[StoredEvent]:
        """Return the events of a stream with versions above `after`, in order, `limit` at most.

        They end with the event that reaches MAX_READ_BYTES. Personal data is in clear.

        Raises:
            StoreFailed, StoreUnavailable: retry.
        """

    async def read_snapshot(self, stream: str, fingerprint: str) -> StoredSnapshot | None:
        """Return the kept snapshot of a stream by code of this fingerprint.

        Raises:
            StoreFailed, StoreUnavailable: retry.
        """

    async def keep_snapshot(self, stream: str, fingerprint: str, snapshot: StoredSnapshot) -> None:
        """Keep a snapshot, unless a newer one of this fingerprint is kept.

        The stream's snapshots of other fingerprints are dropped except the one that was kept last.

        Raises:
            StoreFailed, StoreUnavailable: retry.
        """
