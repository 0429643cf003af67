"""The connection on which the statements on deadlines run, one after the other."""

import asyncio
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runtime.postgres import autocommit

TIMEOUT = 10.0
"""Seconds for a statement."""


class DeadlineSession:
    """Keeps one connection of an engine.

    Args:
        engine: the database.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = autocommit(engine)
        self._lock = asyncio.Lock()
        self._connection: AsyncConnection | None = None
        self._driver: asyncpg.Connection[asyncpg.Record] | None = None

    async def fetch(self, statement: str, *parameters: Any) -> Any:
        """Return the rows of a statement."""
        async with self._lock:  # only its holder may close the connection, since others wait for a statement
            try:
                async with asyncio.timeout(TIMEOUT):
                    driver = await self._open()
                    return await driver.fetch(statement, *parameters)
            except BaseException:  # also a cancellation, which may leave a statement behind
                await self._close()
                raise

    async def close(self) -> None:
        async with self._lock:
            await self._close()

    async def _open(self) -> "asyncpg.Connection[asyncpg.Record]":
        if self._driver is not None and not self._driver.is_closed():
            return self._driver
        await self._close()
        self._connection = await self._engine.connect()
        raw = await self._connection.get_raw_connection()
        driver: asyncpg.Connection[asyncpg.Record] = raw.driver_connection  # type: ignore[assignment]
        self._driver = driver
        return driver

    async def _close(self) -> None:
        connection, self._connection, self._driver = self._connection, None, None
        if connection is not None:
            await connection.invalidate()  # a statement may still run on it
            await connection.close()
