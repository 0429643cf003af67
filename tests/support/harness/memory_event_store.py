"""The event store in memory: the kernel's tests run on it, proved by the same suite as PostgreSQL's."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from uuid import uuid4

from command_server.kernel.ports import (
    Changes,
    EventRow,
    RequestKey,
    RequestLookup,
    StoreConflict,
    StoredEvent,
    StoredRequest,
    StoredStream,
)


class MemoryEventStore:
    """Streams, events and requests in dictionaries; one transaction at a time."""

    def __init__(self) -> None:
        self.events: list[EventRow] = []
        self.streams: dict[str, StoredStream] = {}
        self.requests: dict[RequestKey, StoredRequest] = {}
        self.incarnation = str(uuid4())
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator["MemoryTransaction"]:
        """See EventStore."""
        async with self._turn:
            transaction = MemoryTransaction(self)
            yield transaction
            transaction.commit()


class MemoryTransaction:
    """One transaction; see Transaction for what its methods promise."""

    def __init__(self, store: MemoryEventStore) -> None:
        self._store = store
        self._changes = Changes()

    async def read_streams(self, streams: Collection[str]) -> Mapping[str, StoredStream]:
        """See Transaction."""
        return await self.lock_streams(streams)

    async def lock_streams(self, streams: Collection[str]) -> Mapping[str, StoredStream]:
        """See Transaction."""
        return {name: self._store.streams[name] for name in streams if name in self._store.streams}

    async def find_requests(self, keys: Collection[RequestKey]) -> RequestLookup:
        """See Transaction."""
        found = {key: self._store.requests[key] for key in keys if key in self._store.requests}
        return RequestLookup(self._store.incarnation, found)

    async def read_events(self, stream: str, after: int) -> Sequence[StoredEvent]:
        """See Transaction."""
        rows = [row for row in self._store.events if row.stream == stream and row.version > after]
        return [StoredEvent(row.type, row.data) for row in rows]

    async def write(self, changes: Changes) -> None:
        """See Transaction."""
        versions = {(row.stream, row.version) for row in self._store.events}
        if (
            any(row.is_new and row.id in self._store.streams for row in changes.streams)
            or any((row.stream, row.version) in versions for row in changes.events)
            or any((row.caller, row.request_id) in self._store.requests for row in changes.requests)
        ):
            raise StoreConflict("another writer was first")
        self._changes = changes

    def commit(self) -> None:
        """Let what was written take effect."""
        for stream in self._changes.streams:
            self._store.streams[stream.id] = StoredStream(
                stream.version, stream.updated_at, stream.state, stream.version, stream.fingerprint
            )
        self._store.events += self._changes.events
        for row in self._changes.requests:
            self._store.requests[(row.caller, row.request_id)] = StoredRequest(
                row.type, row.hash, row.outcome
            )
