"""Engines for PostgreSQL: one way to make them, for every process."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

CONNECT_TIMEOUT = 5.0
"""Seconds to make a connection."""


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
        session: PostgreSQL settings of each session, for instance its role.
        pool_size: connections kept open.
        max_overflow: further connections under load.
        pool_timeout: seconds to wait for a connection of the pool.
        command_timeout: seconds that a statement may take; None for no limit.
        options: of SQLAlchemy's `create_async_engine`.
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
