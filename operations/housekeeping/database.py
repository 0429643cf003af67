"""Access to PostgreSQL in the role of housekeeping; every statement commits by itself."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from command_server.postgres.schema import HOUSEKEEPING_ROLE
from runtime.postgres import create_engine

SESSION = {
    "role": HOUSEKEEPING_ROLE,
    "jit": "off",
    # Bounds for the locks of a stopped or frozen process, and for commands that would queue behind a wait.
    "idle_in_transaction_session_timeout": "1s",
    "transaction_timeout": "30s",
    "lock_timeout": "500ms",
    # Batches begin at the oldest row of an index; a plan from stale statistics would read the whole table.
    "enable_seqscan": "off",
}

RECORD_REMOVAL = """
INSERT INTO retention (kind, kept_since, at) VALUES (:kind, :kept_since, now())
ON CONFLICT (kind) DO UPDATE SET kept_since = greatest(retention.kept_since, excluded.kept_since), at = now()
"""


KEPT_SINCE = "SELECT date_trunc('second', now()) - CAST(:retention AS interval)"


class Database:
    """The database of the write model and of the sagas."""

    def __init__(self, database_url: str) -> None:
        self.engine: AsyncEngine = create_engine(
            database_url, session=SESSION, pool_size=6, command_timeout=60.0, isolation_level="AUTOCOMMIT"
        )

    async def close(self) -> None:
        await self.engine.dispose()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Any]:
        """Yield a connection of asyncpg."""
        async with self.engine.connect() as connection:
            try:
                yield (await connection.get_raw_connection()).driver_connection
            except BaseException:
                await connection.invalidate()  # it may be in the middle of a statement
                raise

    async def fetch(self, statement: str, **parameters: Any) -> Sequence[Any]:
        async with self.engine.connect() as connection:
            return (await connection.execute(text(statement), parameters)).all()

    async def fetch_value(self, statement: str, **parameters: Any) -> Any:
        async with self.engine.connect() as connection:
            return await connection.scalar(text(statement), parameters)

    async def compute_kept_since(self, retention: timedelta) -> datetime:
        """Return the time before which data is older than a retention, by PostgreSQL's clock."""
        kept_since: datetime = await self.fetch_value(KEPT_SINCE, retention=retention)
        return kept_since

    async def record_removal(self, kind: str, kept_since: datetime) -> None:
        """Record, before rows are removed, that rows of a kind from before this time may be gone."""
        async with self.engine.connect() as connection:
            await connection.execute(text(RECORD_REMOVAL), {"kind": kind, "kept_since": kept_since})
