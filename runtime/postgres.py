"""PostgreSQL engines: the pool and timeout settings that all processes share."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from runtime.grpc.clock_check import check_clock
from runtime.grpc.health import NotReady
from runtime.postgres_connection import CONNECT_TIMEOUT, connect, parse_url
from runtime.telemetry import tracing
from runtime.telemetry.statement_spans import trace_statements

PROBE = text("SELECT NOT pg_is_in_recovery(), extract(epoch FROM clock_timestamp())")


def create_engine(
    database_url: str,
    *,
    session: Mapping[str, str] | None = None,
    creator: Callable[..., Awaitable[Any]] = connect,
    pool_size: int = 8,
    pool_timeout: float = 5.0,
    command_timeout: float | None = 10.0,
    **options: Any,
) -> AsyncEngine:
    """Return an engine on asyncpg with a fixed pool.

    A pool that overflows closes the additional connections as soon as they are free, so that under load most
    transactions would open a session of their own.

    Args:
        database_url: `postgresql://…`.
        session: PostgreSQL parameters of every session, for instance its role.
        creator: makes a connection; takes the arguments of `connect`.
        pool_size: maximum number of connections; they are opened when needed, and stay open.
        pool_timeout: seconds to wait for a free connection.
        command_timeout: seconds until a statement fails; None for no limit.
        options: further arguments of SQLAlchemy's `create_async_engine`.

    Raises:
        InvalidSetting: the URL is malformed, or a certificate cannot be read.
    """
    url, arguments = parse_url(database_url)
    engine = create_async_engine(
        url,
        connect_args={
            "async_creator_fn": creator,
            "server_settings": dict(session or {}),
            "timeout": CONNECT_TIMEOUT,
            "command_timeout": command_timeout,
            **arguments,
        },
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout,
        **options,
    )
    event.listen(engine.sync_engine, "close", _terminate)
    if tracing.is_on():
        trace_statements(engine)
    return engine


def _terminate(connection: Any, *_: object) -> None:
    """End a connection before SQLAlchemy closes it and waits for PostgreSQL, which may not answer."""
    connection.driver_connection.terminate()


def autocommit(engine: AsyncEngine) -> AsyncEngine:
    """Return an engine on the same pool for single statements: they need neither BEGIN nor ROLLBACK."""
    return engine.execution_options(isolation_level="AUTOCOMMIT")


async def is_ready(engine: AsyncEngine) -> bool:
    """Return True if PostgreSQL accepts writes.

    Raises:
        NotReady: it is a standby, or this machine's clock is away from PostgreSQL's.
        Exception: PostgreSQL does not answer.
    """
    async with autocommit(engine).connect() as connection:
        accepts_writes = False

        async def read_time() -> float:
            nonlocal accepts_writes
            accepts_writes, now = (await connection.execute(PROBE)).one()
            return float(now)

        await check_clock("PostgreSQL", read_time)
    if not accepts_writes:
        raise NotReady("PostgreSQL is a standby and accepts no writes")
    return True
