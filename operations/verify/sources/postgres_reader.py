"""Reads PostgreSQL: streams in pages, each page under one database snapshot."""

from array import array
from bisect import bisect_left
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from contracts.envelope import RecordedEvent, parse_metadata
from contracts.personal_data import Keys
from contracts.sealed_states import list_state_keys, open_state
from contracts.signed_tokens import GetKeyRing
from contracts.subject_keys import RingWrapper
from operations.verify.sources import statements
from operations.verify.spool import SPOOLED_ITEMS, SpooledEvents
from runtime.postgres import create_engine
from runtime.stored_subject_keys import read_keys
from runtime.subject_keys import SubjectKeys, list_ids

PAGE_SIZE = 500
"""Streams that are read, and held in memory with all their events, at once."""
PAGE_EVENTS = 10_000
"""Events of a page; a longer stream is a page of its own."""
PAGE_BYTES = 16_000_000
"""Bytes of events in memory, of one page; further events are kept in files."""
POSITIONS_PAGE_SIZE = 10_000
"""Outbox rows that one statement reads."""
RECEIPTS_PAGE_SIZE = 5_000
"""Requests that one statement checks."""


@dataclass(frozen=True, slots=True)
class StreamRow:
    """A stream's row in `streams`."""

    type: str
    version: int
    state: str | None
    state_version: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class KeptSnapshot:
    """A stream's row in `snapshots`."""

    fingerprint: str
    version: int
    state: str


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """An outbox row; sequence 0 while it is pending."""

    epoch: str
    sequence: int


class OutboxRows:
    """Outbox rows by position, in 18 bytes each. Add them in order of their positions."""

    def __init__(self) -> None:
        self._positions, self._sequences, self._epochs = array("Q"), array("Q"), array("H")
        self._epoch_names: list[str] = []

    def add(self, position: int, row: OutboxRow) -> None:
        if row.epoch not in self._epoch_names:
            self._epoch_names.append(row.epoch)
        self._positions.append(position)
        self._sequences.append(row.sequence)
        self._epochs.append(self._epoch_names.index(row.epoch))

    def get(self, position: int) -> OutboxRow | None:
        index = bisect_left(self._positions, position)
        if index == len(self._positions) or self._positions[index] != position:
            return None
        return OutboxRow(self._epoch_names[self._epochs[index]], self._sequences[index])


@dataclass(slots=True)
class StoredStream:
    """One stream in PostgreSQL; it has a row, or events, or both."""

    name: str
    row: StreamRow | None = None
    events: list[RecordedEvent] | SpooledEvents = field(default_factory=list)
    """In a file if they are many."""
    outbox: OutboxRows = field(default_factory=OutboxRows)
    """The outbox rows of its events."""
    kept_snapshots: list[KeptSnapshot] = field(default_factory=list)
    keys: Keys = field(default_factory=dict)
    """Open its events, which are here as they were recorded."""

    def list_states(self) -> list[str | None]:
        return [*([self.row.state] if self.row else []), *(kept.state for kept in self.kept_snapshots)]

    def open(self, keys: Keys) -> None:
        """Keep the keys, and open the states. One that cannot be opened is left out: nobody can use it."""
        self.keys = keys
        if self.row is not None:
            self.row = replace(self.row, state=open_state(self.row.state, self.name, keys))
        self.kept_snapshots = [
            replace(kept, state=state)
            for kept in self.kept_snapshots
            if (state := open_state(kept.state, self.name, keys)) is not None
        ]


class PostgresReader:
    """Read-only access to the event store and the process manager's tables; a standby suffices.

    Args:
        database_url: `postgresql://…`.
        get_ring: returns the current keys, with which personal data is opened.
    """

    def __init__(self, database_url: str, get_ring: GetKeyRing) -> None:
        self._keys = SubjectKeys(RingWrapper(get_ring))
        self._engine: AsyncEngine = create_engine(
            database_url,
            session=statements.SESSION,
            pool_size=15,
            command_timeout=None,
            isolation_level="REPEATABLE READ",
        )

    async def close(self) -> None:
        await self._engine.dispose()

    async def fetch(self, statement: str, **parameters: Any) -> Sequence[Any]:
        async with self._connect() as connection:
            return (await connection.execute(text(statement), parameters)).all()

    async def fetch_joined(self, statement: str) -> Sequence[Any]:
        """Return the rows of a statement that joins whole tables, with hash joins allowed."""
        async with self._connect() as connection:
            await connection.execute(text("SET LOCAL enable_hashjoin = on"))
            return (await connection.execute(text(statement))).all()

    async def read_incarnation(self) -> tuple[str, bool]:
        """Return the incarnation of the database, and whether this server is a standby."""
        ((incarnation, standby),) = await self.fetch(statements.INCARNATION)
        return incarnation, standby

    async def read_newest_fingerprints(self) -> dict[str, str]:
        """Return the fingerprint of the most recently updated snapshot, by stream type."""
        rows = await self.fetch(statements.NEWEST_FINGERPRINTS)
        return {row.type: row.fingerprint for row in rows}

    async def read_versions(self, after: str = "", limit: int = PAGE_SIZE) -> dict[str, int]:
        """Return the next streams in order of their names, with the version of their last event."""
        rows = await self.fetch(statements.STREAM_NAMES, after=after, limit=limit)
        return select_page({row.name: row.version for row in rows})

    async def read_streams(self, names: Sequence[str]) -> dict[str, StoredStream]:
        """Return the existing streams among these, all from one database snapshot."""
        result: dict[str, StoredStream] = {}
        async with self._connect() as connection:
            for name, *columns in await connection.execute(text(statements.STREAM_ROWS), {"names": names}):
                result[name] = StoredStream(name, StreamRow(*columns))
            for name, *columns in await connection.execute(text(statements.KEPT_SNAPSHOTS), {"names": names}):
                if name in result:
                    result[name].kept_snapshots.append(KeptSnapshot(*columns))
            in_memory, key_ids = 0, set[bytes]()
            async with connection.stream(text(statements.EVENTS), {"names": names}) as rows:
                async for row in rows:
                    event = _to_event(row)
                    key_ids |= list_ids([event])
                    owner = result.setdefault(event.stream, StoredStream(event.stream))
                    if isinstance(owner.events, list):
                        in_memory += len(event.data)
                        if len(owner.events) >= SPOOLED_ITEMS or in_memory > PAGE_BYTES:
                            in_memory -= sum(len(each.data) for each in (*owner.events, event))
                            owner.events = SpooledEvents(owner.events)
                    owner.events.append(event)
            for stream in result.values():
                await _read_outbox(connection, stream)
            for stream in result.values():
                key_ids.update(*map(list_state_keys, stream.list_states()))
            keys = await self._keys.find(key_ids, partial(read_keys, connection))
        for stream in result.values():
            stream.open(keys)
        return result

    async def read_events_at(self, positions: Sequence[int]) -> dict[int, RecordedEvent]:
        """Return the existing events at these positions, by position."""
        rows = await self.fetch(statements.EVENTS_AT, positions=positions)
        return {row.position: _to_event(row) for row in rows}

    async def find_existing(self, names: Sequence[str]) -> set[str]:
        """Return the streams among these that have events."""
        return {name for (name,) in await self.fetch(statements.EXISTING_STREAMS, names=names)}

    async def read_last_position(self) -> int:
        """Return the highest position of an event; 0: there are no events."""
        ((position,),) = await self.fetch(statements.LAST_POSITION)
        return int(position or 0)

    async def count_outbox_rows(self) -> tuple[int, int]:
        """Return the numbers of all rows and of pending rows."""
        ((rows, pending),) = await self.fetch(statements.OUTBOX_COUNTS)
        return rows, pending

    async def find_outbox_rows_without_event(self) -> Sequence[int]:
        """Return the positions of the rows."""
        return [position for (position,) in await self.fetch(statements.OUTBOX_ROWS_WITHOUT_EVENT)]

    async def read_receipts(self) -> AsyncIterator[Sequence[Any]]:
        """Yield the accepted requests in pages of rows (caller, request id, missing).

        `missing` is one `<stream>@<version>` that the receipt names and that does not exist, or None.
        """
        caller, request_id = "", "00000000-0000-0000-0000-000000000000"
        while True:
            page = await self.fetch(
                statements.RECEIPTS, caller=caller, request_id=request_id, limit=RECEIPTS_PAGE_SIZE
            )
            yield page
            if len(page) < RECEIPTS_PAGE_SIZE:
                return
            caller, request_id = page[-1].caller, str(page[-1].request_id)

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[AsyncConnection]:
        async with self._engine.connect() as connection:
            yield connection


async def _read_outbox(connection: AsyncConnection, stream: StoredStream) -> None:
    positions = (event.position for event in stream.events)
    while page := list(islice(positions, POSITIONS_PAGE_SIZE)):
        rows = await connection.execute(text(statements.OUTBOX_ROWS), {"positions": page})
        for position, epoch, sequence in rows:
            stream.outbox.add(position, OutboxRow(str(epoch or ""), sequence or 0))


def select_page(versions: Mapping[str, int]) -> dict[str, int]:
    """Return the first streams that together have no more than PAGE_EVENTS events; at least one."""
    page: dict[str, int] = {}
    for name, version in versions.items():
        if page and sum(page.values()) + version > PAGE_EVENTS:
            break
        page[name] = version
    return page


def _to_event(row: Any) -> RecordedEvent:
    stream, version, kind, data, metadata, recorded_at, position = row
    return RecordedEvent(stream, version, kind, data, recorded_at, position, parse_metadata(metadata))
