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
from sqlalchemy.ext.asyncio import AsyncEngine

from runtime.kept_connection import KeptConnection

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


class KeptSession(KeptConnection):
    """Keeps one session, whose lock ends with it.

    Args:
        engine: the database.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self.name = ""
        """Of the open session; each has a name of its own."""

    async def _prepare(self, driver: "asyncpg.Connection[asyncpg.Record]") -> None:
        name = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}{MARK}"
        await driver.execute(LOCK, name)
        self.name = name
