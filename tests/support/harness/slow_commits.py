"""Slow commits of command servers: PostgreSQL takes a given time for each, and holds its locks meanwhile."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

PLANT = """
CREATE SCHEMA slow;
CREATE TABLE slow.delay (seconds float8 NOT NULL);
INSERT INTO slow.delay VALUES (0);
CREATE SEQUENCE slow.commits;
CREATE FUNCTION slow.wait() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF current_setting('slow.transaction', true) IS DISTINCT FROM pg_current_xact_id()::text THEN
    PERFORM set_config('slow.transaction', pg_current_xact_id()::text, true);
    PERFORM nextval('slow.commits');
    PERFORM pg_sleep((SELECT seconds FROM slow.delay));
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON requests DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION slow.wait();
"""
COUNT = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM slow.commits"
REMOVE = "DROP TRIGGER slow ON requests; DROP SCHEMA slow CASCADE"


class SlowCommits:
    """Sets the duration of the commits in one database, and counts them."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def delay(self, seconds: float) -> None:
        """Make each commit that begins from now on take these seconds longer."""
        await self._connection.execute("UPDATE slow.delay SET seconds = $1", seconds)

    async def count(self) -> int:
        """Return the number of transactions that have begun to commit."""
        return int(await self._connection.fetchval(COUNT))


@asynccontextmanager
async def slow_commits(database_url: str) -> AsyncIterator[SlowCommits]:
    """Plant the delay in a database; remove it at the end."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(PLANT)
        yield SlowCommits(connection)
    finally:
        await connection.execute(REMOVE)
        await connection.close()
