"""The event store on PostgreSQL.

How it works. Connections come from SQLAlchemy's pool; the statements run on asyncpg directly, because
SQLAlchemy's executor costs a fifth of their rate. A transaction runs at READ COMMITTED: row locks in
`streams`, taken in order of their ids, serialise writers of the same stream, and unique keys of streams,
events and requests catch every other race. The whole batch is one INSERT over arrays. BEGIN and COMMIT are
sent with the first and the last statement (`pipelined_connection.py`). Session settings bound the time that a
frozen server can hold locks. `store_errors` says what an error means for a command.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
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
)
from command_server.postgres import statements
from command_server.postgres.event_rows import decode_lookup, encode_changes
from command_server.postgres.pipelined_connection import PipelinedConnection, connect_pipelined
from command_server.postgres.schema import SERVICE_ROLE
from command_server.postgres.store_errors import discards_connections, translate
from runtime.postgres import create_engine

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
    """Streams, events and requests in PostgreSQL 17 or later, in transactions at READ COMMITTED."""

    def __init__(self, database_url: str) -> None:
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
                    yield PostgresTransaction(connection.driver)
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
        return [StoredEvent(row[0], row[1]) for row in rows]

    async def read_snapshot(self, stream: str, fingerprint: str) -> StoredSnapshot | None:
        async with self.connect() as driver:
            row = await driver.fetchrow(statements.READ_SNAPSHOT, stream, fingerprint)
        return None if row is None else StoredSnapshot(row[0], row[1])

    async def keep_snapshot(self, stream: str, fingerprint: str, snapshot: StoredSnapshot) -> None:
        async with self.connect() as driver:
            await driver.execute(
                statements.KEEP_SNAPSHOT, stream, fingerprint, snapshot.version, snapshot.state
            )
            await driver.execute(statements.DROP_OLD_SNAPSHOTS, [stream])

    async def close(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            await _discard(kept)
        await self.engine.dispose()


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

    def __init__(self, connection: PipelinedConnection) -> None:
        self._connection = connection

    async def read_streams(self, streams: Collection[str]) -> Mapping[str, StoredStream]:
        rows = await self._connection.fetch_in_transaction(statements.READ_STREAMS, list(streams))
        return {row[0]: StoredStream(*row[1:]) for row in rows}

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
        return found, decode_lookup(requests)

    async def read_events(self, after: Mapping[str, int]) -> Mapping[str, Sequence[StoredEvent]]:
        events: dict[str, list[StoredEvent]] = {}
        rows = await self._connection.fetch_in_transaction(
            statements.READ_EVENTS, list(after), list(after.values()), MAX_READ_BYTES
        )
        for stream, type_, data in rows:
            events.setdefault(stream, []).append(StoredEvent(type_, data))
        return events

    async def commit(self, changes: Changes) -> None:
        if changes.kept_snapshots:
            kept = changes.kept_snapshots
            await self._connection.fetch_in_transaction(statements.KEEP_REPLACED_SNAPSHOTS, kept)
            await self._connection.fetch_in_transaction(statements.DROP_OLD_SNAPSHOTS, kept)
        await self._connection.execute_and_commit(statements.WRITE, *encode_changes(changes))
