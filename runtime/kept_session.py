"""A PostgreSQL session that a process keeps, and whose end others notice at once.

How it works. The session holds an advisory lock on its name. PostgreSQL ends the session of a killed process
as soon as its socket closes, and the lock with it, so a process that can take the lock of a name knows that
the session has ended (`has_ended`). A frozen process, or one behind a broken network, keeps its session:
leases therefore expire besides. The names of earlier releases lack MARK and have no lock; only expiry ends
those.
"""

import os
import socket
from uuid import uuid4

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

MARK = "/session"
"""The end of the name of a process that keeps a session."""
LOCK = "SELECT pg_advisory_lock(hashtextextended($1, 0))"


def has_ended(name: str) -> str:
    """Return the SQL condition that the session of a name has ended.

    It is never true of a session that another process keeps. A process must not use it with its own name,
    since its own lock does not exclude itself.

    Args:
        name: an SQL expression.
    """
    return f"({name} LIKE '%{MARK}' AND pg_try_advisory_xact_lock_shared(hashtextextended({name}, 0)))"


class KeptSession:
    """Keeps one connection of an engine.

    Args:
        engine: the database.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self.name = ""
        """Of the open session; each has a name of its own."""
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._connection: AsyncConnection | None = None
        self._driver: asyncpg.Connection[asyncpg.Record] | None = None

    async def open(self) -> "asyncpg.Connection[asyncpg.Record]":
        """Return the session; open one if there is none or if it has ended."""
        if self._driver is not None and not self._driver.is_closed():
            return self._driver
        await self.close()
        self._connection = connection = await self._engine.connect()
        try:
            raw = await connection.get_raw_connection()
            driver: asyncpg.Connection[asyncpg.Record] = raw.driver_connection  # type: ignore[assignment]
            name = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}{MARK}"
            await driver.execute(LOCK, name)
        except BaseException:
            await self.close()
            raise
        self.name, self._driver = name, driver
        return driver

    async def close(self) -> None:
        """End the session, and its lock."""
        connection, self._connection, self._driver = self._connection, None, None
        if connection is not None:
            await connection.invalidate()  # in the pool the session would keep its lock
            await connection.close()
