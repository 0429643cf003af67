"""The record of reads in PostgreSQL, in batches: reads that arrive during an insert share the next one."""

import asyncio

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runtime.database_user import guard_start
from runtime.grpc.recorded_reads import Read
from runtime.postgres import create_engine
from runtime.process.lifecycle import Lifecycle

ROLE = "diptych_query"
"""The role of the query servers, which may INSERT into `reads`, and nothing else."""
MAX_PENDING = 10_000
"""Reads that may wait for their insert; further ones are refused."""
TIMEOUT = 2.0
"""Seconds for a connection, and for an insert."""
INSERT = text(
    "INSERT INTO reads (caller, on_behalf_of, method, ids, trace_id)"
    " VALUES (:caller, :on_behalf_of, :method, :ids, :trace_id)"
)


def create_read_engine(database_url: str) -> AsyncEngine:
    """Return connections in the role of the query servers; they are made when they are needed first."""
    session = {"role": ROLE, "jit": "off", "statement_timeout": f"{TIMEOUT:.0f}s"}
    return create_engine(
        database_url, session=session, pool_size=1, pool_timeout=TIMEOUT, command_timeout=TIMEOUT + 0.5
    )


class ReadTable:
    """Records reads.

    Args:
        engine: of a role that may INSERT into `reads`.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._pending: list[tuple[Read, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def guard_start(self, lifecycle: Lifecycle) -> None:
        """Check the database user, as `database_user.guard_start`."""
        await guard_start(lifecycle, self._engine)

    async def record(self, read: Read) -> None:
        """Return once the read is recorded.

        Raises:
            BufferError: too many reads are pending.
            Exception: the insert failed.
        """
        if len(self._pending) >= MAX_PENDING:
            raise BufferError(f"{MAX_PENDING} reads are pending")
        completion: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((read, completion))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        await completion

    async def close(self) -> None:
        await self._engine.dispose()

    async def _write(self) -> None:
        while self._pending:
            batch, self._pending = self._pending, []
            failure: Exception | None = None
            try:
                async with self._engine.begin() as connection:
                    await connection.execute(INSERT, [_build_row(read) for read, _ in batch])
            except Exception as error:  # `record` raises it for each read
                failure = error
            for _, completion in batch:
                if completion.done():
                    continue
                if failure is None:
                    completion.set_result(None)
                else:
                    completion.set_exception(failure)


def _build_row(read: Read) -> dict[str, object]:
    return {
        "caller": read.caller,
        "on_behalf_of": read.on_behalf_of,
        "method": read.method,
        "ids": read.ids,
        "trace_id": read.trace_id,
    }
