"""Reads the rows that a group of inputs needs, and writes its changes, each in one statement.

The statements run on a connection that is kept, and on asyncpg directly: SQLAlchemy's executor and pool would
take most of the time that they need.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple
from datetime import UTC, datetime
from time import monotonic, time_ns
from typing import Any

import asyncpg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from contracts import streams
from process_manager.groups.cause import Cause
from process_manager.groups.unit_of_work import UnitOfWork
from process_manager.postgres import changes, read_statement, write_statement
from process_manager.postgres.columns import to_columns
from process_manager.postgres.due_work import NO_CHECKPOINT, Checkpoint, DueTimer, Feed
from process_manager.postgres.kept_rows import KeptRows
from process_manager.postgres.stored_rows import Key, Needs, ParkedStream, StoredRows
from process_manager.saga import Saga

SESSION = {
    # Compilation takes longer than these short statements.
    "jit": "off",
    # All access is by key. Without fresh statistics the planner would choose to scan whole tables.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # Planning for the lengths of the arrays would take longer than the statement.
    "plan_cache_mode": "force_generic_plan",
    # Of a table that somebody has locked, or a key that an open transaction has inserted; rows are skipped.
    "lock_timeout": "100ms",
}
"""Of the session that writes groups, besides those of all sessions of a manager."""

LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InvalidCachedStatementError,
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.ReadOnlySQLTransactionError,  # of a standby, after a failover
)
"""Errors of PostgreSQL after which another connection may succeed."""
OF_DATA = ("22", "23", "54")
"""Classes of SQLSTATE of errors that one row may cause."""
LOCKED = asyncpg.LockNotAvailableError
"""Of a statement that has waited for `lock_timeout`."""

OF_CONNECTION = (asyncpg.InterfaceError, asyncpg.InternalClientError, SQLAlchemyError, OSError)
"""Errors of the driver and of the pool, all of them but `DataError`."""


def is_outage(error: Exception) -> bool:
    """Return whether an error is that of the connection or the database, and not of a row."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] not in OF_DATA
    is_data = isinstance(error, asyncpg.DataError)
    return isinstance(error, OF_CONNECTION) and not is_data


NO_ROWS = StoredRows(datetime.min.replace(tzinfo=UTC), {}, {}, {}, {})
"""Of inputs that only advance checkpoints."""


class GroupStore:
    """The rows of sagas, as groups of inputs read and write them. It has one connection.

    Args:
        engine: a pool of one connection.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: tuple[AsyncConnection, Any] | None = None
        """The connection of the pool, and the driver's."""
        self._is_closed = False
        self._lock = asyncio.Lock()
        self._rows = KeptRows()
        self.written_ns = (0, 0)
        """When the last statement that wrote a group began and ended, in nanoseconds since 1970."""

    async def read(
        self, sagas: Mapping[str, Saga[Any]], inputs: Sequence[Needs], feeds: Collection[Feed]
    ) -> StoredRows:
        """Return the rows that these inputs need, and the checkpoints of these feeds."""
        if not feeds and not any(each.instances or each.streams for each in inputs):
            return NO_ROWS
        if (rows := self._rows.take(inputs, feeds)) is not None:
            return rows
        async with self._lock:
            try:
                return await self._read(sagas, inputs, feeds)
            except Exception as error:
                if not await self._discard_if_lost(error):
                    raise
            return await self._read(sagas, inputs, feeds)

    async def _read(
        self, sagas: Mapping[str, Saga[Any]], inputs: Sequence[Needs], feeds: Collection[Feed]
    ) -> StoredRows:
        driver, sent_at = await self._connect(), monotonic()
        rows = await _read(driver, sagas, inputs, feeds)
        self._rows.keep_time(rows.now, sent_at, monotonic())
        return rows

    async def write(self, units: Sequence[UnitOfWork]) -> set[int]:
        """Write the changes of units of work; return the numbers of those that no other transaction has met.

        Raises:
            Exception: nothing has been written, or it is unknown whether the connection was lost before.
        """
        rows = changes.list_rows(units)
        write = write_statement.compose(len(units), rows)
        async with self._lock:
            try:
                driver = await self._connect()
                sent_at, start = monotonic(), time_ns()
                written = await driver.fetch(write.sql, *write.parameters)
            except Exception as error:
                await self._discard_if_lost(error)
                raise
        self.written_ns = start, time_ns()
        if written:
            self._rows.keep_time(written[0]["now"], sent_at, monotonic())
        instances = {number: dict[Key, Mapping[str, Any]]() for number in range(len(units))}
        for row in (*rows.get("begun", ()), *rows.get("updated", ())):
            instances[row["unit"]][row["saga"], row["id"]] = row
        for number, revision, _ in written:
            self._rows.keep_rows(units[number], instances[number], revision)
        return {row["unit"] for row in written}

    async def find_error(self, unit: UnitOfWork) -> Exception | None:
        """Return the error with which PostgreSQL refuses the changes of a unit of work; nothing is written.

        Raises:
            Exception: it says nothing about the changes, for instance that a table is locked.
        """
        write = write_statement.compose(1, changes.list_rows([unit]))
        async with self._lock:
            transaction = (driver := await self._connect()).transaction()
            try:
                await transaction.start()
                await driver.fetch(write.sql, *write.parameters)
            except Exception as error:
                if is_outage(error):
                    await self._discard_if_lost(error)
                    raise
                return error
            finally:
                if self._connection is not None:
                    await transaction.rollback()
            return None

    async def close(self) -> None:
        """End the connection, also under a statement. Inputs that are still under way fail."""
        self._is_closed = True
        if self._connection is not None:
            await self._connection[0].close()
        await self._engine.dispose()

    async def _connect(self) -> Any:
        if self._connection is None:
            pooled = await self._engine.connect()
            if self._is_closed:
                await pooled.invalidate()
                await pooled.close()
                raise asyncpg.InterfaceError("the store of groups is closed")
            self._connection = pooled, (await pooled.get_raw_connection()).driver_connection
        return self._connection[1]

    async def _discard_if_lost(self, error: Exception) -> bool:
        """Discard the connection unless PostgreSQL has answered with an error; return whether it was lost."""
        if not is_outage(error) or (isinstance(error, asyncpg.PostgresError) and not isinstance(error, LOST)):
            return False
        # The rows of another server may be older, under the same transaction ids. The next group takes its
        # rows before it connects.
        self._rows.clear()
        lost, self._connection = self._connection, None
        if lost is not None:
            await lost[0].invalidate()
            await lost[0].close()
        return True


async def _read(
    driver: Any, sagas: Mapping[str, Saga[Any]], inputs: Sequence[Needs], feeds: Collection[Feed]
) -> StoredRows:
    instances = {key: _find_own_stream(sagas[key[0]], key[1]) for each in inputs for key in each.instances}
    keys = sorted(instances)
    found = await driver.fetch(
        read_statement.READ_INSTANCES, *to_columns(keys, 2), [instances[key] for key in keys]
    )
    own_streams = {(saga, stream) for (saga, _), stream in instances.items()}
    streams = sorted({key for each in inputs for key in each.streams} - own_streams)
    parked = [row for row in found if row["parked_stream"] is not None]
    if streams:
        parked += await driver.fetch(read_statement.READ_PARKED, *to_columns(streams, 2))
    return StoredRows(
        found[0]["now"],
        {(row["saga"], row["id"]): row for row in found if row["saga"] is not None},
        {(row["saga"], row["parked_stream"]): _parse_parked(row) for row in parked},
        await _read_timers(driver, [each.timer for each in inputs if each.timer is not None]),
        await _read_checkpoints(driver, feeds),
    )


async def _read_timers(driver: Any, timers: Sequence[DueTimer]) -> dict[DueTimer, Cause | None]:
    if not timers:
        return {}
    rows = await driver.fetch(read_statement.READ_TIMERS, *to_columns(map(astuple, timers), 4))
    return {DueTimer(*row[:4]): None if row["causation_id"] is None else Cause(*row[4:]) for row in rows}


async def _read_checkpoints(driver: Any, feeds: Collection[Feed]) -> dict[Feed, Checkpoint]:
    if not feeds:
        return {}
    rows = await driver.fetch(read_statement.READ_CHECKPOINTS, *to_columns(map(astuple, feeds), 3))
    return {
        Feed(*row[:3]): NO_CHECKPOINT if row["epoch"] is None else (row["epoch"], row["sequence"])
        for row in rows
    }


def _find_own_stream(saga: Saga[Any], id_: str) -> str:
    return streams.stream_name(saga.own_type, id_) if saga.own_type else ""


def _parse_parked(row: Any) -> ParkedStream:
    feed = Feed(row["saga"], row["stream_type"], row["partition"])
    stream, version, revision = row["parked_stream"], row["parked_version"], row["parked_revision"]
    return ParkedStream(feed, stream, version, row["latest"], row["error"], revision)
