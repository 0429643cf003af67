"""PostgreSQL engines: the pool and timeout settings that all processes share."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from runtime.grpc.clock_check import check_clock

PROBE = text("SELECT NOT pg_is_in_recovery(), extract(epoch FROM clock_timestamp())")
CONNECT_TIMEOUT = 5.0
"""Seconds until an attempt to connect fails."""


def create_engine(
    database_url: str,
    *,
    session: Mapping[str, str] | None = None,
    pool_size: int = 4,
    max_overflow: int = 4,
    pool_timeout: float = 5.0,
    command_timeout: float | None = 10.0,
    **options: Any,
) -> AsyncEngine:
    """Return an engine on asyncpg.

    Args:
        database_url: `postgresql://…`.
        session: PostgreSQL parameters of every session, for instance its role.
        pool_size: number of connections that stay open.
        max_overflow: number of additional connections under load.
        pool_timeout: seconds to wait for a free connection.
        command_timeout: seconds until a statement fails; None for no limit.
        options: further arguments of SQLAlchemy's `create_async_engine`.
    """
    return create_async_engine(
        make_url(database_url).set(drivername="postgresql+asyncpg"),
        connect_args={
            "server_settings": dict(session or {}),
            "timeout": CONNECT_TIMEOUT,
            "command_timeout": command_timeout,
        },
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_timeout=pool_timeout,
        **options,
    )


async def is_ready(engine: AsyncEngine) -> bool:
    """Return whether PostgreSQL accepts writes.

    Raises:
        NotReady: this machine's clock is away from PostgreSQL's.
        Exception: PostgreSQL does not answer.
    """
    async with engine.connect() as connection:
        accepts_writes = False

        async def read_time() -> float:
            nonlocal accepts_writes
            accepts_writes, now = (await connection.execute(PROBE)).one()
            return float(now)

        await check_clock("PostgreSQL", read_time)
    return accepts_writes
