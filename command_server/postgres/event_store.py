"""The event store on PostgreSQL: SQLAlchemy's pool and schema, asyncpg itself on the hot path."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import Any

import asyncpg
import msgspec
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from command_server.kernel.decider import RejectionKind
from command_server.kernel.outcomes import Accepted, Outcome, Rejection
from command_server.kernel.ports import (
    Changes,
    RequestKey,
    RequestLookup,
    StoreConflict,
    StoredEvent,
    StoredRequest,
    StoredStream,
    StoreUnavailable,
)
from command_server.postgres import statements
from command_server.postgres.schema import SERVICE_ROLE
from runtime.postgres import create_engine

SESSION = {
    # What a stopped or frozen server holds, it holds no longer than this.
    "idle_in_transaction_session_timeout": "1s",
    "transaction_timeout": "5s",
    # The statements are short and always the same.
    "jit": "off",
    # They look rows up by keys, in tables of any size; without statistics the planner would read them whole.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}

CONFLICTS = (asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # the server is stopping
    asyncpg.CannotConnectNowError,
    asyncpg.ReadOnlySQLTransactionError,  # it is a standby, after a failover
    asyncpg.TransactionTimeoutError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


def session_settings(role: str) -> dict[str, str]:
    """Return the settings of sessions that act in one of the schema's roles."""
    return {**SESSION, "role": role}


class PostgresEventStore:
    """Streams, events and requests in PostgreSQL 17 or later, in transactions at READ COMMITTED."""

    def __init__(self, database_url: str) -> None:
        self.engine = create_engine(database_url, session=session_settings(SERVICE_ROLE))

    @asynccontextmanager
    async def begin(self) -> AsyncIterator["PostgresTransaction"]:
        """See EventStore."""
        try:
            async with self.engine.connect() as connection:
                driver = await _driver(connection)
                try:
                    async with driver.transaction(isolation="read_committed"):
                        yield PostgresTransaction(driver)
                except LOST:
                    await connection.invalidate()
                    raise
        except CONFLICTS as error:
            raise StoreConflict(str(error)) from error
        except LOST as error:
            await self.engine.dispose()  # its other connections may be dead as well, without saying so
            raise StoreUnavailable(str(error)) from error
        except DBAPIError as error:  # SQLAlchemy's own, from making the connection
            raise StoreUnavailable(str(error.orig)) from error

    async def reachable(self) -> bool:
        """Return whether PostgreSQL answers and takes writes."""
        try:
            async with self.engine.connect() as connection:
                writable = await (await _driver(connection)).fetchval("SELECT NOT pg_is_in_recovery()")
        except (*LOST, DBAPIError):
            return False
        return bool(writable)

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()


async def _driver(connection: AsyncConnection) -> "asyncpg.Connection[Any]":
    """Return asyncpg's connection: SQLAlchemy's executor costs the hot statements a fifth of their rate."""
    raw = await connection.get_raw_connection()
    driver: asyncpg.Connection[Any] = raw.driver_connection  # type: ignore[assignment]
    return driver


class PostgresTransaction:
    """One transaction; see Transaction for what its methods promise."""

    def __init__(self, connection: "asyncpg.Connection[Any]") -> None:
        self._connection = connection

    async def read_streams(self, streams: Collection[str]) -> Mapping[str, StoredStream]:
        """See Transaction."""
        return await self._streams(statements.READ_STREAMS, streams)

    async def lock_streams(self, streams: Collection[str]) -> Mapping[str, StoredStream]:
        """See Transaction."""
        return await self._streams(statements.LOCK_STREAMS, streams)

    async def _streams(self, statement: str, streams: Collection[str]) -> Mapping[str, StoredStream]:
        rows = await self._connection.fetch(statement, streams)
        return {row[0]: StoredStream(*row[1:]) for row in rows}

    async def find_requests(self, keys: Collection[RequestKey]) -> RequestLookup:
        """See Transaction."""
        callers, ids = zip(*keys, strict=True)
        rows = await self._connection.fetch(statements.FIND_REQUESTS, callers, ids)
        found = {
            (row["caller"], str(row["request_id"])): _stored_request(row) for row in rows if row["caller"]
        }
        return RequestLookup(str(rows[0]["incarnation"]), found)

    async def read_events(self, stream: str, after: int) -> Sequence[StoredEvent]:
        """See Transaction."""
        rows = await self._connection.fetch(statements.READ_EVENTS, stream, after)
        return [StoredEvent(row[0], row[1]) for row in rows]

    async def write(self, changes: Changes) -> None:
        """See Transaction."""
        requests = sorted(changes.requests, key=attrgetter("caller", "request_id"))
        outcomes = [_outcome_columns(row.outcome) for row in requests]
        await self._connection.execute(
            statements.WRITE,
            *_columns(changes.streams, statements.STREAM_COLUMNS),
            *_columns(changes.events, statements.EVENT_COLUMNS),
            *_columns(requests, statements.REQUEST_COLUMNS),
            *([row[index] for row in outcomes] for index in range(3)),
        )


def _columns(rows: Sequence[object], names: Sequence[str]) -> list[list[Any]]:
    return [[getattr(row, name) for row in rows] for name in names]


def _outcome_columns(outcome: Outcome) -> tuple[str, str | None, str | None]:
    """Return the columns outcome, rejection and receipt."""
    match outcome:
        case Accepted(versions):
            return "ACCEPTED", None, msgspec.json.encode(versions).decode()
        case Rejection(reason, kind, details):
            return reason, msgspec.json.encode({"kind": kind, "details": details}).decode(), None


def _stored_request(row: Any) -> StoredRequest:
    outcome: Outcome
    if row["receipt"] is not None:
        outcome = Accepted(msgspec.json.decode(row["receipt"]), row["recorded_at"])
    else:
        stored = msgspec.json.decode(row["rejection"])
        outcome = Rejection(row["outcome"], RejectionKind(stored["kind"]), stored["details"])
    return StoredRequest(row["type"], row["hash"], outcome)
