"""A connection on which the statements of one purpose run, one after the other.

What polls does so here: SQLAlchemy's pool and executor would take longer than PostgreSQL does.
"""

import asyncio
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from runtime.kept_connection import KeptConnection

TIMEOUT = 10.0
"""Seconds for a statement."""


class StatementSession:
    """Keeps one connection of an engine.

    Args:
        engine: the database.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._connection = KeptConnection(engine)
        self._lock = asyncio.Lock()

    async def fetch(self, statement: str, *parameters: Any) -> Any:
        """Return the rows of a statement."""
        async with self._lock:  # only its holder may close the connection, since others wait for a statement
            try:
                async with asyncio.timeout(TIMEOUT):
                    driver = await self._connection.open()
                    return await driver.fetch(statement, *parameters)
            except BaseException:  # also a cancellation, which may leave a statement behind
                await self._connection.close()
                raise

    async def close(self) -> None:
        async with self._lock:
            await self._connection.close()
