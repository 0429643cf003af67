"""The event store on PostgreSQL.

How it works. Connections come from SQLAlchemy's pool; the statements run on asyncpg directly, because
SQLAlchemy's executor costs a fifth of their rate. A transaction runs at READ COMMITTED: row locks in
`streams`, taken in order of their ids, serialise writers of the same stream, and unique keys of streams,
events and requests catch every other race. The whole batch is one INSERT over arrays. Session settings bound
the time that a frozen server can hold locks. `store_errors` says what an error means for a command.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import Any

import asyncpg
import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from command_server.kernel.decider import RejectionKind
from command_server.kernel.outcomes import Accepted, Outcome, Rejection
from command_server.kernel.ports import (
    MAX_READ_BYTES,
    Changes,
    RequestKey,
    RequestLookup,
    StoredEvent,
    StoredRequest,
    StoredSnapshot,
    StoredStream,
)
from command_server.postgres import statements
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
                except Exception as error:
                    if discards_connections(error):
                        await connection.invalidate()
                    raise
        except Exception as error:
            failure = translate(error)
            if failure is None:
                raise
            if discards_connections(error):
                # The other pooled connections may be dead too, without an error yet.
                await self.engine.dispose()
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
        await self.engine.dispose()


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
