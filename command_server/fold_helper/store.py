"""The fold helper's access to PostgreSQL: one asyncpg connection, since SQLAlchemy takes 40 MB."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from command_server.kernel.ports import MAX_READ_BYTES, StoredEvent, StoredSnapshot, StoreUnavailable
from command_server.postgres import statements
from command_server.postgres.sealed_states import READ_KEYS_OF_SUBJECTS, open_snapshot, seal_snapshot
from contracts.key_ring import KeyRing
from contracts.subject_keys import RingWrapper, WrappedKey
from runtime.subject_keys import READ_KEYS, SubjectKeys

TIMEOUT = 10.0
"""Seconds for connecting, and for one statement."""
SNAPSHOT_TIMEOUT = 60.0
"""Seconds for a statement that reads or writes a state, which may be large."""


class HelperStore:
    """Reads events, and reads and keeps snapshots; one statement at a time.

    Args:
        database_url: `postgresql://…`.
        session: PostgreSQL parameters of the session.
        keys: the path of the key ring; empty to leave what is sealed as it is.
    """

    def __init__(self, database_url: str, session: Mapping[str, str], keys: str = "") -> None:
        self._keys = (
            SubjectKeys(RingWrapper(lambda: KeyRing.parse(Path(keys).read_bytes()))) if keys else None
        )
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
        events = [StoredEvent(row[0], row[1]) for row in rows]
        if self._keys is None:
            return events
        return await self._keys.open_each(events, [stream] * len(events), self._fetch_keys)

    async def _fetch_keys(self, ids: Collection[bytes]) -> list[WrappedKey]:
        async with self._connect() as connection:
            return [WrappedKey(*row) for row in await connection.fetch(READ_KEYS, list(ids))]

    async def read_snapshot(self, stream: str, fingerprint: str) -> StoredSnapshot | None:
        async with self._connect() as connection:
            row = await connection.fetchrow(
                statements.READ_SNAPSHOT, stream, fingerprint, timeout=SNAPSHOT_TIMEOUT
            )
        snapshot = None if row is None else StoredSnapshot(row[0], row[1])
        return await open_snapshot(self._keys, snapshot, stream, self._fetch_keys)

    async def keep_snapshot(self, stream: str, fingerprint: str, snapshot: StoredSnapshot) -> None:
        state = await seal_snapshot(self._keys, snapshot, stream, self._fetch_keys_of)
        if state is None:
            return
        async with self._connect() as connection:
            await connection.execute(
                statements.KEEP_SNAPSHOT,
                *(stream, fingerprint, snapshot.version, state),
                timeout=SNAPSHOT_TIMEOUT,
            )
            await connection.execute(statements.DROP_OLD_SNAPSHOTS, [stream])

    async def _fetch_keys_of(self, subjects: Collection[str]) -> list[WrappedKey]:
        async with self._connect() as connection:
            rows = await connection.fetch(READ_KEYS_OF_SUBJECTS, list(subjects))
        return [WrappedKey(*row) for row in rows]

    def _terminate(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
