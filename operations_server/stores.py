"""Connections to the three servers that hold data. The process starts without any of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.signed_tokens import GetKeyRing
from operations_server.postgres.schema import ROLE
from runtime import jetstream
from runtime.postgres import create_engine
from runtime.process.settings import Settings
from runtime.redis.pool import create_pool

STATEMENT_TIMEOUT = 5.0
"""Seconds after which PostgreSQL ends a statement of an operator's question."""
REDIS_CONNECTIONS = 8
REDIS_TIMEOUT = 3.0
"""Seconds to wait for a free connection, and for each reply of Redis. It is asked twice, and operators get an
answer before their own time-out of 10 seconds."""
STATUS_TIMEOUT = 1.0
"""Seconds for a statement, and for a reply of Redis, of the status."""


@dataclass(frozen=True)
class Stores:
    """The connections that all questions and acts share."""

    database: AsyncEngine
    """In the role of the operations server, each statement bounded by STATEMENT_TIMEOUT."""
    redis: Redis
    nats: jetstream.Connection
    status_database: AsyncEngine
    """Apart from `database`, so that slow questions delay no status; with STATUS_TIMEOUT."""
    status_redis: Redis


@asynccontextmanager
async def connect(settings: Settings, get_ring: GetKeyRing) -> AsyncIterator[Stores]:
    """Yield the connections; they are made when they are needed first.

    Args:
        settings: the addresses.
        get_ring: returns the current keys.

    Raises:
        InvalidSetting: a URL is malformed.
    """
    database = create_database(settings.database_url)
    status_database = create_database(settings.database_url, statement_timeout=STATUS_TIMEOUT)
    url = settings.redis_url
    redis = Redis.from_pool(create_pool(url, connections=REDIS_CONNECTIONS, timeout=REDIS_TIMEOUT))
    status_redis = Redis.from_pool(create_pool(url, connections=2, timeout=STATUS_TIMEOUT))
    try:
        async with await jetstream.connect(settings.nats_url, "operations_server", get_ring) as nats:
            yield Stores(database, redis, nats, status_database, status_redis)
    finally:
        for client in (redis, status_redis):
            await client.aclose()
        for engine in (database, status_database):
            await engine.dispose()


def create_database(
    database_url: str, *, statement_timeout: float = STATEMENT_TIMEOUT, pool_size: int = 4
) -> AsyncEngine:
    """Return an engine in the role of the operations server.

    Args:
        database_url: `postgresql://…`.
        statement_timeout: seconds after which PostgreSQL ends a statement.
        pool_size: maximum number of connections.
    """
    session = {
        "role": ROLE,
        "statement_timeout": f"{round(statement_timeout * 1000)}ms",
        # Bounds for transactions that a stopped or frozen process leaves open.
        "idle_in_transaction_session_timeout": "5s",
        "lock_timeout": "1s",
        "jit": "off",  # compilation takes longer than these statements
    }
    # PostgreSQL ends a slow statement itself; the client's limit is for a server that is frozen.
    return create_engine(
        database_url,
        session=session,
        pool_size=pool_size,
        pool_timeout=statement_timeout,
        command_timeout=statement_timeout + 1.0,
    )
