"""The clock of a database, which a test can set wrong: functions of its own precede those of PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg

PLANT = """
CREATE SCHEMA wrong_clock;
CREATE TABLE wrong_clock.shift (by interval NOT NULL);
INSERT INTO wrong_clock.shift VALUES ('0');
CREATE FUNCTION wrong_clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE SECURITY DEFINER AS
  'SELECT pg_catalog.clock_timestamp() + by FROM wrong_clock.shift';
CREATE FUNCTION wrong_clock.now() RETURNS timestamptz LANGUAGE sql STABLE SECURITY DEFINER AS
  'SELECT pg_catalog.now() + by FROM wrong_clock.shift';
GRANT USAGE ON SCHEMA wrong_clock TO PUBLIC;
"""
SEARCH_PATH = "ALTER DATABASE {} SET search_path = public, wrong_clock, pg_catalog"
END_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class DatabaseClock:
    """Sets the clock of one database."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def shift(self, by: timedelta) -> None:
        """Set the clock to the real time plus `by`, for all later statements."""
        await self._connection.execute("UPDATE wrong_clock.shift SET by = $1", by)


@asynccontextmanager
async def planted_clock(database_url: str) -> AsyncIterator[DatabaseClock]:
    """Give a database a clock that can be set, in all sessions that begin from now on; end the others."""
    connection = await asyncpg.connect(database_url)
    try:
        name = await connection.fetchval("SELECT quote_ident(current_database())")
        await connection.execute(PLANT)
        await connection.execute(SEARCH_PATH.format(name))
        await connection.execute(END_SESSIONS)
        yield DatabaseClock(connection)
    finally:
        await connection.execute(f"ALTER DATABASE {name} RESET search_path")
        await connection.execute(END_SESSIONS)
        await connection.execute("DROP SCHEMA wrong_clock CASCADE")
        await connection.close()
