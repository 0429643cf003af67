"""The fold helper's access to PostgreSQL: one asyncpg connection, since SQLAlchemy takes 40 MB."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from command_server.kernel.ports import MAX_READ_BYTES, StoredEvent, StoredSnapshot, StoreUnavailable
from command_server.postgres import statements

TIMEOUT = 10.0
"""Seconds for connecting, and for one statement."""
SNAPSHOT_TIMEOUT = 60.0
"""Seconds for a statement that reads or writes a state, which may be large."""


class HelperStore:
    """Reads events, and reads and keeps snapshots; one statement at a time.

    Args:
        database_url: `postgresql://…`.
        session: PostgreSQL parameters of the session.
    """

    def __init__(self, database_url: str, session: Mapping[str, str]) -> None:
        self._database_url = database_url
        self._session = dict(session)
        self._lock = asyncio.Lock()
        self._connection: asyncpg.Connection[Any] | None = None

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator["asyncpg.Connection[Any]"]:
        async with self._lock:
            try:
                if self._connection is None:
                    self._connection = await asyncpg.connect(
                        self._database_url,
                        timeout=TIMEOUT,
                        command_timeout=TIMEOUT,
                        server_settings=self._session,
                    )
                yield self._connection
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                self._terminate()
                raise StoreUnavailable(str(error)) from error
            except BaseException:  # a cancelled statement may still be under way
                self._terminate()
                raise

    async def read_chunk(self, stream: str, after: int, limit: int) -> Sequence[StoredEvent]:
        async with self._connect() as connection:
            rows = await connection.fetch(statements.READ_CHUNK, stream, after, limit, MAX_READ_BYTES)
        return [StoredEvent(row[0], row[1]) for row in rows]

    async def read_snapshot(self, stream: str, fingerprint: str) -> StoredSnapshot | None:
        async with self._connect() as connection:
            row = await connection.fetchrow(
                statements.READ_SNAPSHOT, stream, fingerprint, timeout=SNAPSHOT_TIMEOUT
            )
        return None if row is None else StoredSnapshot(row[0], row[1])

    async def keep_snapshot(self, stream: str, fingerprint: str, snapshot: StoredSnapshot) -> None:
        async with self._connect() as connection:
            await connection.execute(
                statements.KEEP_SNAPSHOT,
                *(stream, fingerprint, snapshot.version, snapshot.state),
                timeout=SNAPSHOT_TIMEOUT,
            )
            await connection.execute(statements.DROP_OLD_SNAPSHOTS, [stream])

    def _terminate(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
