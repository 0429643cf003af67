"""The errors of an unreachable server, and their text in one line."""

import asyncpg
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from runtime import jetstream

UNREACHABLE = (
    *jetstream.UNREACHABLE,
    RedisError,
    SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
)
"""Raised by the clients of PostgreSQL, NATS and Redis."""


def summarize(error: BaseException) -> str:
    """Return an error's first line, without the library's advice."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
