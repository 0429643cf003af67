"""The event store on PostgreSQL.

How it works. Connections come from SQLAlchemy's pool; the statements run on asyncpg directly, because
SQLAlchemy's executor costs a fifth of their rate. A transaction runs at READ COMMITTED: row locks in
`streams`, taken in order of their ids, serialise writers of the same stream, and unique keys of streams,
events and requests catch every other race. The whole batch is one INSERT over arrays. BEGIN and COMMIT are
sent with the first and the last statement (`pipelined_connection.py`). Session settings bound the time that a
frozen server can hold locks. `store_errors` says what an error means for a command.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

from command_server.kernel.ports import (
    MAX_READ_BYTES,
    Changes,
    RequestKey,
    RequestLookup,
    StoredEvent,
    StoredSnapshot,
    StoredStream,
    StoreFailed,
)
from command_server.kernel.sealing import MASTER_KEY_MISSING
from command_server.postgres import statements
from command_server.postgres.event_rows import decode_lookup, encode_changes
from command_server.postgres.key_statements import OBTAIN_KEYS
from command_server.postgres.pipelined_connection import PipelinedConnection, connect_pipelined
from command_server.postgres.schema import SERVICE_ROLE
from command_server.postgres.sealed_states import (
    READ_KEYS_OF_SUBJECTS,
    open_snapshot,
    open_streams,
    seal_snapshot,
)
from command_server.postgres.store_errors import discards_connections, translate
from contracts.subject_keys import MasterKeyMissing, WrappedKey
from runtime.postgres import create_engine
from runtime.subject_keys import READ_KEYS, Fetch, SubjectKeys

SESSION_SETTINGS = {
    # Bounds for the locks of a stopped or frozen command server.
    "idle_in_transaction_session_timeout": "1s",
    "transaction_timeout": "5s",
    # Compilation takes longer than these short statements.
    "jit": "off",
    # All access is by key. Without fresh statistics the planner would choose to scan whole tables.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}

LOCK_TIMEOUT = "300ms"
"""Time after which a batch continues without the streams that others have locked: many times as long as
another server's batch takes."""


def session_settings(role: str) -> dict[str, str]:
    """Return the settings of sessions that act as `role`, one of the schema's roles."""
    return {**SESSION_SETTINGS, "role": role}


class PostgresEventStore:
    """Streams, events and requests in PostgreSQL 17 or later, in transactions at READ COMMITTED.

    Args:
        database_url: `postgresql://…`.
        keys: open events; without any, what is sealed stays so.
    """

    def __init__(self, database_url: str, keys: SubjectKeys | None = None) -> None:
        self._keys = keys
        session = {**session_settings(SERVICE_ROLE), "lock_timeout": LOCK_TIMEOUT}
        self.engine = create_engine(database_url, session=session, creator=connect_pipelined)
        self._kept: _Connection | None = None
        """The connection of the last transaction, for the next one: a pool costs more than a statement."""

    @asynccontextmanager
    async def begin(self) -> AsyncIterator["PostgresTransaction"]:
        async with self._translate_errors():
            connection = await self._take_connection()
            try:
                async with _roll_back_at_end(connection.driver):
                    yield PostgresTransaction(connection.driver, self._keys)
            except BaseException as error:
                if discards_connections(error):
                    await connection.pooled.invalidate()
                raise
            finally:
                await self._keep_connection(connection)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator["asyncpg.Connection[Any]"]:
        """Open a connection, and translate its errors to those of the port."""
        async with self._translate_errors(), self.engine.connect() as connection:
            try:
                yield await _get_driver(connection)
            except Exception as error:
                if discards_connections(error):
                    await connection.invalidate()
                raise

    async def _take_connection(self) -> "_Connection":
        kept, self._kept = self._kept, None
        if kept is not None and not kept.driver.is_closed():
            return kept
        if kept is not None:
            await _discard(kept)
        pooled = await self.engine.connect()
        return _Connection(pooled, await _get_driver(pooled))

    async def _keep_connection(self, connection: "_Connection") -> None:
        if self._kept is None and not connection.pooled.invalidated:
            self._kept = connection
        else:
            await connection.pooled.close()

    @asynccontextmanager
    async def _translate_errors(self) -> AsyncIterator[None]:
        try:
            yield
        except Exception as error:
            failure = translate(error)
            if failure is None:
                raise
            if discards_connections(error):
                # The other connections may be dead too, without an error yet.
                await self.close()
            raise failure from error

    async def read_chunk(self, stream: str, after: int, limit: int) -> Sequence[StoredEvent]:
        async with self.connect() as driver:
            rows = await driver.fetch(statements.READ_CHUNK, stream, after, limit, MAX_READ_BYTES)
        events = [StoredEvent(row[0], row[1]) for row in rows]
        return await self.open_events(events, [stream] * len(events))

    async def open_events(
        self, events: Sequence[StoredEvent], streams: Sequence[str]
    ) -> Sequence[StoredEvent]:
        """Return events in clear.

        Args:
            events: as they were recorded.
            streams: of each of them.

        Raises:
            StoreFailed, StoreUnavailable: retry.
        """
        return await _open(self._keys, events, streams, self._fetch_keys)

    async def _fetch_keys(self, ids: Collection[bytes]) -> list[WrappedKey]:
        async with self.connect() as driver:
            return _to_keys(await driver.fetch(READ_KEYS, list(ids)))

    async def _fetch_keys_of(self, subjects: Collection[str]) -> list[WrappedKey]:
        async with self.connect() as driver:
            return _to_keys(await driver.fetch(READ_KEYS_OF_SUBJECTS, list(subjects)))

    async def read_snapshot(self, stream: str, fingerprint: str) -> StoredSnapshot | None:
        async with self.connect() as driver:
            row = await driver.fetchrow(statements.READ_SNAPSHOT, stream, fingerprint)
        snapshot = None if row is None else StoredSnapshot(row[0], row[1])
        with _translate_missing_key():
            return await open_snapshot(self._keys, snapshot, stream, self._fetch_keys)

    async def keep_snapshot(self, stream: str, fingerprint: str, snapshot: StoredSnapshot) -> None:
        with _translate_missing_key():
            state = await seal_snapshot(self._keys, snapshot, stream, self._fetch_keys_of)
        if state is None:
            return
        async with self.connect() as driver:
            await driver.execute(statements.KEEP_SNAPSHOT, stream, fingerprint, snapshot.version, state)
            await driver.execute(statements.DROP_OLD_SNAPSHOTS, [stream])

    async def close(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            await _discard(kept)
        await self.engine.dispose()


Open = Callable[[Sequence[StoredEvent], Sequence[str]], Awaitable[Sequence[StoredEvent]]]
"""Returns events in clear, with their streams beside them."""


async def group_events(rows: Sequence[Any], open_events: Open) -> dict[str, list[StoredEvent]]:
    """Return events in clear, by stream.

    Args:
        rows: of stream, type and data.
        open_events: opens them.
    """
    events: dict[str, list[StoredEvent]] = {}
    stored = await open_events([StoredEvent(row[1], row[2]) for row in rows], [row[0] for row in rows])
    for row, event in zip(rows, stored, strict=True):
        events.setdefault(row[0], []).append(event)
    return events


async def _open(
    keys: SubjectKeys | None, events: Sequence[StoredEvent], streams: Sequence[str], fetch: Fetch
) -> Sequence[StoredEvent]:
    if keys is None:
        return events
    with _translate_missing_key():
        return await keys.open_each(events, streams, fetch)


@contextmanager
def _translate_missing_key() -> Iterator[None]:
    try:
        yield
    except MasterKeyMissing as error:
        raise StoreFailed(str(error), MASTER_KEY_MISSING) from error


def _to_keys(rows: Sequence[Any]) -> list[WrappedKey]:
    return [WrappedKey(*row) for row in rows]


class _Connection(NamedTuple):
    """A connection that is taken from the pool."""

    pooled: AsyncConnection
    driver: PipelinedConnection


async def _discard(connection: _Connection) -> None:
    await connection.pooled.invalidate()
    await connection.pooled.close()


@asynccontextmanager
async def _roll_back_at_end(driver: PipelinedConnection) -> AsyncIterator[None]:
    """Roll back the transaction at the end of the block, if there still is one and its connection is kept."""
    try:
        yield
    except BaseException as error:
        if not discards_connections(error):
            await _roll_back(driver)
        raise
    await _roll_back(driver)


async def _roll_back(driver: PipelinedConnection) -> None:
    if not driver.is_closed() and driver.is_in_transaction():
        await driver.execute("ROLLBACK")


async def _get_driver(connection: AsyncConnection) -> PipelinedConnection:
    raw = await connection.get_raw_connection()
    driver: PipelinedConnection = raw.driver_connection  # type: ignore[assignment]
    return driver


class PostgresTransaction:
    """A `Transaction` on one connection. Its first statement begins it, and `commit` ends it."""

    def __init__(self, connection: PipelinedConnection, keys: SubjectKeys | None = None) -> None:
        self._connection = connection
        self._keys = keys

    async def read_streams(self, streams: Collection[str]) -> Mapping[str, StoredStream]:
        rows = await self._connection.fetch_in_transaction(statements.READ_STREAMS, list(streams))
        return await self._open_streams({row[0]: StoredStream(*row[1:]) for row in rows})

    async def lock_and_find(
        self, streams: Collection[str], keys: Collection[RequestKey], *, skip_locked: bool = False
    ) -> tuple[Mapping[str, StoredStream], RequestLookup]:
        callers, ids = [key[0] for key in keys], [key[1] for key in keys]
        statement = statements.LOCK_FREE_AND_FIND if skip_locked else statements.LOCK_AND_FIND
        rows = await self._connection.fetch_in_transaction(statement, callers, ids, list(streams))
        found = {row["id"]: StoredStream(*row[1:7]) for row in rows if row["id"] is not None}
        requests: Sequence[Any] = [row for row in rows if row["id"] is None]
        if requests[0]["has_waited"]:
            requests = await self._connection.fetch_in_transaction(statements.FIND_REQUESTS, callers, ids)
        return await self._open_streams(found), decode_lookup(requests)

    async def _open_streams(self, streams: Mapping[str, StoredStream]) -> Mapping[str, StoredStream]:
        with _translate_missing_key():
            return await open_streams(self._keys, streams, self._fetch_keys)

    async def read_events(self, after: Mapping[str, int]) -> Mapping[str, Sequence[StoredEvent]]:
        rows = await self._connection.fetch_in_transaction(
            statements.READ_EVENTS, list(after), list(after.values()), MAX_READ_BYTES
        )
        return await group_events(rows, self._open)

    async def _open(self, events: Sequence[StoredEvent], streams: Sequence[str]) -> Sequence[StoredEvent]:
        return await _open(self._keys, events, streams, self._fetch_keys)

    async def _fetch_keys(self, ids: Collection[bytes]) -> list[WrappedKey]:
        return _to_keys(await self._connection.fetch_in_transaction(READ_KEYS, list(ids)))

    async def obtain_keys(self, new: Mapping[str, WrappedKey]) -> Mapping[str, WrappedKey]:
        keys = new.values()
        columns = [key.id for key in keys], [key.wrapped_by for key in keys], [key.wrapped for key in keys]
        rows = await self._connection.fetch_in_transaction(OBTAIN_KEYS, list(new), *columns)
        return {row[0]: WrappedKey(*row[1:]) for row in rows}

    async def commit(self, changes: Changes) -> None:
        if changes.kept_snapshots:
            kept = changes.kept_snapshots
            await self._connection.fetch_in_transaction(statements.KEEP_REPLACED_SNAPSHOTS, kept)
            await self._connection.fetch_in_transaction(statements.DROP_OLD_SNAPSHOTS, kept)
        await self._connection.execute_and_commit(statements.WRITE, *encode_changes(changes))
