"""The event store on PostgreSQL.

How it works. Connections come from SQLAlchemy's pool; the statements run on asyncpg directly, because
SQLAlchemy's executor costs a fifth of their rate. A transaction runs at READ COMMITTED: row locks in
`streams`, taken in order of their ids, serialise writers of the same stream, and unique keys of streams,
events and requests catch every other race. The whole batch is one INSERT over arrays. Session settings bound
the time that a frozen server can hold locks. Errors are of five sorts: CONFLICTS, which a rerun on fresh
reads solves; a lock that another transaction holds for longer than LOCK_TIMEOUT; CONNECTION_ERRORS, after
which a commit may have taken effect and the whole pool is discarded; InsufficientResourcesError, after which
nothing was written; all others, which are bugs and pass through.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from errno import EMFILE, ENFILE
from operator import attrgetter
from typing import Any

import asyncpg
import msgspec
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from command_server.kernel.decider import RejectionKind
from command_server.kernel.outcomes import Accepted, Outcome, Rejection
from command_server.kernel.ports import (
    MAX_READ_BYTES,
    Changes,
    RequestKey,
    RequestLookup,
    StoreConflict,
    StoredEvent,
    StoredRequest,
    StoredSnapshot,
    StoredStream,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
)
from command_server.postgres import statements
from command_server.postgres.schema import SERVICE_ROLE
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

CONFLICTS = (asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
CONNECTION_ERRORS = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # the server is stopping
    asyncpg.CannotConnectNowError,
    asyncpg.ReadOnlySQLTransactionError,  # the server became a standby in a failover
    asyncpg.TransactionTimeoutError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)

TOO_MANY_CONNECTIONS = "TOO_MANY_CONNECTIONS"
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
        self.engine = create_engine(database_url, session=session)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator["PostgresTransaction"]:
        async with self.connect() as driver, driver.transaction(isolation="read_committed"):
            yield PostgresTransaction(driver)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator["asyncpg.Connection[Any]"]:
        """Open a connection, and translate its errors to those of the port."""
        try:
            async with self.engine.connect() as connection:
                driver = await _get_driver(connection)
                try:
                    yield driver
                except CONNECTION_ERRORS:
                    await connection.invalidate()
                    raise
        except CONFLICTS as error:
            raise StoreConflict(str(error)) from error
        except asyncpg.LockNotAvailableError as error:
            raise StoreLocked(str(error)) from error
        except asyncpg.TooManyConnectionsError as error:
            raise StoreUnavailable(str(error), TOO_MANY_CONNECTIONS) from error
        except asyncpg.InsufficientResourcesError as error:  # a full disk, or no memory
            raise StoreFull(str(error)) from error
        except CONNECTION_ERRORS as error:
            await self.engine.dispose()  # the other pooled connections may be dead too, without an error yet
            raise StoreUnavailable(str(error), _find_cause(error)) from error
        except DBAPIError as error:  # SQLAlchemy wraps errors of the connection attempt
            raise StoreUnavailable(str(error.orig), _find_cause(error.orig)) from error

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
        await self.engine.dispose()


def _find_cause(error: BaseException | None) -> str:
    """Return the cause of a failed connection, as far as callers may know it."""
    if getattr(error, "sqlstate", None) == asyncpg.TooManyConnectionsError.sqlstate:
        return TOO_MANY_CONNECTIONS
    return "TOO_MANY_OPEN_FILES" if getattr(error, "errno", None) in (EMFILE, ENFILE) else ""


async def _get_driver(connection: AsyncConnection) -> "asyncpg.Connection[Any]":
    raw = await connection.get_raw_connection()
    driver: asyncpg.Connection[Any] = raw.driver_connection  # type: ignore[assignment]
    return driver


class PostgresTransaction:
    """A `Transaction` on one asyncpg connection."""

    def __init__(self, connection: "asyncpg.Connection[Any]") -> None:
        self._connection = connection

    async def read_streams(self, streams: Collection[str]) -> Mapping[str, StoredStream]:
        return await self._fetch_streams(statements.READ_STREAMS, streams)

    async def lock_streams(
        self, streams: Collection[str], *, skip_locked: bool = False
    ) -> Mapping[str, StoredStream]:
        statement = statements.LOCK_FREE_STREAMS if skip_locked else statements.LOCK_STREAMS
        return await self._fetch_streams(statement, streams)

    async def _fetch_streams(self, statement: str, streams: Collection[str]) -> Mapping[str, StoredStream]:
        rows = await self._connection.fetch(statement, list(streams))
        return {row[0]: StoredStream(*row[1:]) for row in rows}

    async def find_requests(self, keys: Collection[RequestKey]) -> RequestLookup:
        callers, ids = zip(*keys, strict=True)
        rows = await self._connection.fetch(statements.FIND_REQUESTS, callers, ids)
        requests = {
            (row["caller"], str(row["request_id"])): _decode_request(row) for row in rows if row["caller"]
        }
        first = rows[0]
        return RequestLookup(str(first["incarnation"]), requests, first["now"], first["kept_since"])

    async def read_events(self, after: Mapping[str, int]) -> Mapping[str, Sequence[StoredEvent]]:
        events: dict[str, list[StoredEvent]] = {}
        rows = await self._connection.fetch(
            statements.READ_EVENTS, list(after), list(after.values()), MAX_READ_BYTES
        )
        for stream, type_, data in rows:
            events.setdefault(stream, []).append(StoredEvent(type_, data))
        return events

    async def write(self, changes: Changes) -> None:
        if changes.kept_snapshots:
            await self._connection.execute(statements.KEEP_REPLACED_SNAPSHOTS, changes.kept_snapshots)
            await self._connection.execute(statements.DROP_OLD_SNAPSHOTS, changes.kept_snapshots)
        # One order on all servers: inserts of the same new keys must not wait for each other in a circle.
        requests = sorted(changes.requests, key=attrgetter("caller", "request_id"))
        outcomes = [_encode_outcome(row.outcome) for row in requests]
        await self._connection.execute(
            statements.WRITE,
            *_transpose(changes.streams, statements.STREAM_COLUMNS),
            *_transpose(changes.events, statements.EVENT_COLUMNS),
            *_transpose(requests, statements.REQUEST_COLUMNS),
            *([row[index] for row in outcomes] for index in range(3)),
        )


def _transpose(rows: Sequence[object], names: Sequence[str]) -> list[list[Any]]:
    return [[getattr(row, name) for row in rows] for name in names]


def _encode_outcome(outcome: Outcome) -> tuple[str, str | None, str | None]:
    """Return the values of the columns `outcome`, `rejection` and `receipt`."""
    match outcome:
        case Accepted(versions):
            return "ACCEPTED", None, msgspec.json.encode(versions).decode()
        case Rejection(reason, kind, details):
            return reason, msgspec.json.encode({"kind": kind, "details": details}).decode(), None


def _decode_request(row: Any) -> StoredRequest:
    outcome: Outcome
    if row["receipt"] is not None:
        outcome = Accepted(msgspec.json.decode(row["receipt"]), row["recorded_at"])
    else:
        rejection = msgspec.json.decode(row["rejection"])
        outcome = Rejection(row["outcome"], RejectionKind(rejection["kind"]), rejection["details"])
    return StoredRequest(row["type"], row["hash"], outcome)
