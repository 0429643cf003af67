"""Access to PostgreSQL for verifying: statements of their own, each of which sees what is committed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from command_server.postgres.schema import READER_ROLE
from runtime.postgres import create_engine

if TYPE_CHECKING:
    import asyncpg

    Driver = asyncpg.Connection[Any]
else:
    Driver = Any

SESSION = {"jit": "off", "work_mem": "64MB"}


@asynccontextmanager
async def connect(database_url: str, role: str = READER_ROLE) -> AsyncIterator[Driver]:
    """Yield a connection of asyncpg."""
    engine = create_engine(database_url, session=SESSION | {"role": role}, pool_size=1, command_timeout=None)
    try:
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()
            driver: Any = raw.driver_connection
            yield driver
    finally:
        await engine.dispose()
