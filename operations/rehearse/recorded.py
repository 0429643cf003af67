"""What is on record in PostgreSQL: the streams and their events, read under one snapshot of the database.

How it works. The first connection exports its snapshot, and every other one begins its transaction with it,
so that all processes read the same events. Streams are read in pages, by index. The events of a page come
through a cursor, some at a time, so neither a long stream nor large events fill the memory.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from command_server.postgres.schema import READER_ROLE
from contracts.envelope import RecordedEvent, parse_metadata
from contracts.sealed_states import list_state_keys, open_state
from contracts.signed_tokens import GetKeyRing
from contracts.subject_keys import RingWrapper, WrappedKey
from runtime.postgres import create_engine
from runtime.subject_keys import READ_KEYS, SubjectKeys

STREAMS_PAGE = 1_000
"""Streams of a page, at most."""
PAGE_EVENTS = 4_000
"""Events of a page; a longer stream is a page of its own."""
READ_EVENTS = 1_000
"""Events that are read at once."""
READ_BYTES = 4_000_000
"""Bytes of events that are read at once, roughly."""

SESSION = {
    "role": READER_ROLE,
    "default_transaction_read_only": "on",
    "jit": "off",
    # One transaction lasts as long as the rehearsal.
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "transaction_timeout": "0",
    # Recently filled tables have no statistics, so the planner would read them whole: force index lookups.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
READ_STREAMS = """
SELECT id, version FROM streams WHERE id > $1 AND type = ANY($2::text[]) ORDER BY id LIMIT $3
"""
READ_SNAPSHOTS = """
SELECT id, version, state::text AS state, state_version FROM streams WHERE id = ANY($1::text[])
"""
READ_EVENTS_OF = """
SELECT stream, version, type, data, metadata::text, recorded_at, position FROM events
WHERE stream = ANY($1::text[]) ORDER BY stream, version
"""

READ_SKIPS = "SELECT consumer, stream, version FROM skipped_events WHERE stream = ANY($1::text[])"

Skips = Mapping[tuple[str, str], frozenset[int]]
"""The versions that a projection or a saga has stepped over, by its name as a consumer and by stream."""


class StoredState(NamedTuple):
    """The snapshot of a stream, as the running release has stored it."""

    version: int
    state: str | None


class Record:
    """A connection with one transaction.

    Args:
        database_url: `postgresql://…`.
        get_ring: returns the current keys, with which personal data is opened.
    """

    def __init__(self, database_url: str, get_ring: GetKeyRing) -> None:
        self._keys = SubjectKeys(RingWrapper(get_ring))
        self._engine = create_engine(
            database_url, session=SESSION, pool_size=1, command_timeout=None, isolation_level="AUTOCOMMIT"
        )
        self._connection: AsyncConnection | None = None
        self._driver: Any = None

    async def begin(self, snapshot: str = "") -> None:
        """Begin a transaction, with a snapshot that another connection has exported or a new one."""
        if self._connection is None:
            self._connection = await self._engine.connect()
            self._driver = (await self._connection.get_raw_connection()).driver_connection
        await self._driver.execute(BEGIN)
        if snapshot:
            await self._driver.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.invalidate()  # its transaction is not SQLAlchemy's
            await self._connection.close()
        await self._engine.dispose()

    async def renew(self) -> None:
        """Leave the transaction for a new one, which sees what has been committed meanwhile."""
        await self._driver.execute("ROLLBACK")
        await self.begin()

    async def fetch(self, statement: str, *values: Any) -> Sequence[Any]:
        rows: Sequence[Any] = await self._driver.fetch(statement, *values)
        return rows

    async def open(self, events: Sequence[RecordedEvent]) -> list[RecordedEvent]:
        """Return events in clear."""
        return list(await self._keys.open(events, self._fetch_keys))

    async def _fetch_keys(self, ids: Collection[bytes]) -> list[WrappedKey]:
        return [WrappedKey(*row) for row in await self._driver.fetch(READ_KEYS, list(ids))]

    async def export_snapshot(self) -> str:
        """Return the name of the transaction's snapshot; it ends with the transaction."""
        return str(await self._driver.fetchval("SELECT pg_export_snapshot()"))

    async def count_events(self) -> int:
        """Return the position of the last event, which is the number of events if none was rolled back."""
        return int(await self._driver.fetchval("SELECT coalesce(max(position), 0) FROM events"))

    async def read_pages(self, stream_types: Collection[str]) -> AsyncIterator[dict[str, int]]:
        """Yield all streams of these types with their versions, in pages."""
        after, page = "", dict[str, int]()
        while rows := await self._driver.fetch(READ_STREAMS, after, list(stream_types), STREAMS_PAGE):
            for name, version in rows:
                if page and (len(page) == STREAMS_PAGE or sum(page.values()) + version > PAGE_EVENTS):
                    yield page
                    page = {}
                page[name] = version
            after = rows[-1][0]
        if page:
            yield page

    async def read_states(self, names: Sequence[str]) -> Mapping[str, StoredState]:
        rows = await self._driver.fetch(READ_SNAPSHOTS, names)
        ids = {id_ for row in rows for id_ in list_state_keys(row["state"])}
        keys = await self._keys.find(ids, self._fetch_keys)
        return {
            row["id"]: StoredState(row["state_version"], open_state(row["state"], row["id"], keys))
            for row in rows
        }

    async def read_skips(self, names: Collection[str]) -> Skips:
        """Return the skipped events of these streams."""
        skips: dict[tuple[str, str], frozenset[int]] = {}
        for consumer, stream, version in await self._driver.fetch(READ_SKIPS, list(names)):
            skips[consumer, stream] = skips.get((consumer, stream), frozenset()) | {version}
        return skips

    async def read_events(self, names: Sequence[str]) -> AsyncIterator[list[RecordedEvent]]:
        """Yield the events of these streams, stream by stream, in slices that belong to one stream each."""
        cursor, limit = await self._driver.cursor(READ_EVENTS_OF, names), READ_EVENTS
        events: list[RecordedEvent] = []
        while rows := await cursor.fetch(limit):
            size = sum(len(row[3]) for row in rows)
            limit = max(1, min(READ_EVENTS, len(rows) * READ_BYTES // max(size, 1)))
            for event in await self.open([build_event(row) for row in rows]):
                if events and events[-1].stream != event.stream:
                    yield events
                    events = []
                events.append(event)
            if len(events) >= limit:
                yield events
                events = []
        if events:
            yield events


def build_event(row: Sequence[Any]) -> RecordedEvent:
    """Return the event of a row: stream, version, type, data, metadata, time and position."""
    stream, version, kind, data, metadata, at, position = row
    return RecordedEvent(stream, version, kind, data, at, position, parse_metadata(metadata))
