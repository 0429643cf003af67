"""A connection to PostgreSQL that a process keeps, for single statements on asyncpg directly."""

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runtime.postgres import autocommit
from runtime.telemetry.metrics import CONNECTIONS_LOST


class KeptConnection:
    """Keeps one connection of an engine. For one task at a time.

    Args:
        engine: the database.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = autocommit(engine)
        self._connection: AsyncConnection | None = None
        self._driver: asyncpg.Connection[asyncpg.Record] | None = None

    async def open(self) -> "asyncpg.Connection[asyncpg.Record]":
        """Return the connection; open one if there is none or if it has ended."""
        if self._driver is not None and not self._driver.is_closed():
            return self._driver
        if self._driver is not None:
            CONNECTIONS_LOST.count("PostgreSQL")
        await self.close()
        self._connection = connection = await self._engine.connect()
        try:
            raw = await connection.get_raw_connection()
            driver: asyncpg.Connection[asyncpg.Record] = raw.driver_connection  # type: ignore[assignment]
            await self._prepare(driver)
        except BaseException:
            await self.close()
            raise
        self._driver = driver
        return driver

    async def _prepare(self, driver: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Do what a new connection needs before it is used."""

    async def close(self) -> None:
        """End the connection, on which a statement may still run, rather than return it to the pool."""
        connection, self._connection, self._driver = self._connection, None, None
        if connection is not None:
            await connection.invalidate()
            await connection.close()
