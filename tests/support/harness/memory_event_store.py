"""An event store in memory for the kernel's tests. The contract tests cover it and PostgreSQL's alike."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import uuid4

from command_server.kernel import ports
from command_server.kernel.ports import (
    Changes,
    EventRow,
    RequestKey,
    RequestLookup,
    StoreConflict,
    StoredEvent,
    StoredRequest,
    StoredSnapshot,
    StoredStream,
)
from command_server.postgres.event_store import group_events
from command_server.postgres.sealed_states import open_snapshot, open_streams, seal_snapshot
from contracts.subject_keys import RingWrapper, WrappedKey
from runtime.subject_keys import SubjectKeys
from tests.support.harness.keys import get_ring

T = TypeVar("T")


class MemoryEventStore:
    """Streams, events and requests in dictionaries; one transaction at a time.

    Args:
        clock: returns the store's time in UTC.
    """

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.clock = clock
        self.events: list[EventRow] = []
        self.streams: dict[str, StoredStream] = {}
        self.requests: dict[RequestKey, StoredRequest] = {}
        self.snapshots: dict[tuple[str, str], StoredSnapshot] = {}
        """By stream and fingerprint."""
        self.subject_keys: dict[str, WrappedKey] = {}
        """By subject."""
        self.opened = SubjectKeys(RingWrapper(get_ring))
        self.incarnation = str(uuid4())
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator["MemoryTransaction"]:
        async with self._lock:
            yield MemoryTransaction(self)

    async def read_chunk(self, stream: str, after: int, limit: int) -> Sequence[StoredEvent]:
        await asyncio.sleep(0)
        events = list(_limit(self.list_events(stream, after)[:limit]))
        return await self.open_events(events, [stream] * len(events))

    def list_events(self, stream: str, after: int) -> list[StoredEvent]:
        rows = [row for row in self.events if row.stream == stream and row.version > after]
        return [StoredEvent(row.type, row.data) for row in rows]

    async def open_events(
        self, events: Sequence[StoredEvent], streams: Sequence[str]
    ) -> Sequence[StoredEvent]:
        return await self.opened.open_each(events, streams, self.fetch_keys)

    async def fetch_keys(self, ids: Collection[bytes]) -> list[WrappedKey]:
        return [key for key in self.subject_keys.values() if key.id in ids]

    async def read_snapshot(self, stream: str, fingerprint: str) -> StoredSnapshot | None:
        snapshot = self.snapshots.get((stream, fingerprint))
        return await open_snapshot(self.opened, snapshot, stream, self.fetch_keys)

    async def keep_snapshot(self, stream: str, fingerprint: str, snapshot: StoredSnapshot) -> None:
        async def fetch(subjects: Collection[str]) -> list[WrappedKey]:
            return [self.subject_keys[each] for each in subjects if each in self.subject_keys]

        state = await seal_snapshot(self.opened, snapshot, stream, fetch)
        if state is None:
            return
        snapshot = StoredSnapshot(snapshot.version, state)
        kept = self.snapshots.get((stream, fingerprint))
        if kept is None or kept.version <= snapshot.version:
            self.keep(stream, fingerprint, snapshot)

    def keep(self, stream: str, fingerprint: str, snapshot: StoredSnapshot) -> None:
        """Keep the snapshot, and of the others of its stream the one that was kept last."""
        self.snapshots.pop((stream, fingerprint), None)
        for other in [key for key in self.snapshots if key[0] == stream][:-1]:
            del self.snapshots[other]
        self.snapshots[(stream, fingerprint)] = snapshot


class MemoryTransaction:
    """A `Transaction` whose changes take effect in `commit`."""

    def __init__(self, store: MemoryEventStore) -> None:
        self._store = store
        self._new_keys: dict[str, WrappedKey] = {}

    async def read_streams(self, streams: Collection[str]) -> Mapping[str, StoredStream]:
        found = {name: self._store.streams[name] for name in streams if name in self._store.streams}
        return await open_streams(self._store.opened, found, self._store.fetch_keys)

    async def lock_and_find(
        self, streams: Collection[str], keys: Collection[RequestKey], *, skip_locked: bool = False
    ) -> tuple[Mapping[str, StoredStream], RequestLookup]:
        requests = {key: self._store.requests[key] for key in keys if key in self._store.requests}
        lookup = RequestLookup(self._store.incarnation, requests, self._store.clock())
        return await MemoryTransaction.read_streams(self, streams), lookup

    async def read_events(self, after: Mapping[str, int]) -> Mapping[str, Sequence[StoredEvent]]:
        rows = ((name, each) for name in sorted(after) for each in self._store.list_events(name, after[name]))
        limited = [(name, each.type, each.data) for name, each in _limit(rows, lambda row: row[1])]
        return await group_events(limited, self._store.open_events)

    async def obtain_keys(self, new: Mapping[str, WrappedKey]) -> Mapping[str, WrappedKey]:
        known = self._store.subject_keys
        self._new_keys |= {subject: key for subject, key in new.items() if subject not in known}
        return {subject: known.get(subject, key) for subject, key in new.items()}

    async def commit(self, changes: Changes) -> None:
        versions = {(row.stream, row.version) for row in self._store.events}
        if (
            any(row.is_new and row.id in self._store.streams for row in changes.streams)
            or any((row.stream, row.version) in versions for row in changes.events)
            or any((row.caller, row.request_id) in self._store.requests for row in changes.requests)
        ):
            raise StoreConflict("a stream, version or request id is taken")
        self._apply(changes)

    def _apply(self, changes: Changes) -> None:
        self._store.subject_keys |= self._new_keys
        for name in changes.kept_snapshots:
            replaced = self._store.streams[name]
            assert replaced.state is not None
            snapshot = StoredSnapshot(replaced.state_version, replaced.state)
            self._store.keep(name, replaced.fingerprint, snapshot)
        for stream in changes.streams:
            self._store.streams[stream.id] = StoredStream(
                stream.version,
                stream.updated_at,
                stream.state,
                stream.version,
                stream.fingerprint,
                stream.digest or None,
            )
        self._store.events += changes.events
        for row in changes.requests:
            self._store.requests[(row.caller, row.request_id)] = StoredRequest(
                row.type, row.hash, row.outcome
            )


def _limit(rows: Iterable[T], get_event: Callable[[T], Any] = lambda row: row) -> Iterator[T]:
    """Yield rows up to the one whose event reaches MAX_READ_BYTES."""
    size = 0
    for row in rows:
        yield row
        size += len(get_event(row).data)
        if size >= ports.MAX_READ_BYTES:
            return
