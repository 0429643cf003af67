"""A slow PostgreSQL: each commit or statement of command servers takes a given time, and holds its locks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from command_server.postgres.schema import SERVICE_ROLE

CREATE = """
CREATE SCHEMA slow;
GRANT USAGE ON SCHEMA slow TO PUBLIC;
CREATE TABLE slow.delay (seconds float8 NOT NULL);
INSERT INTO slow.delay VALUES (0);
CREATE SEQUENCE slow.calls;
"""
DROP = "DROP SCHEMA slow CASCADE;"
COUNT = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM slow.calls"

DELAY_COMMITS = """
CREATE FUNCTION slow.wait() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF current_setting('slow.transaction', true) IS DISTINCT FROM pg_current_xact_id()::text THEN
    PERFORM set_config('slow.transaction', pg_current_xact_id()::text, true);
    PERFORM nextval('slow.calls');
    PERFORM pg_sleep((SELECT seconds FROM slow.delay));
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON requests DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION slow.wait();
"""
RELEASE_COMMITS = "DROP TRIGGER slow ON requests;"

DELAY_STATEMENTS = f"""
CREATE FUNCTION slow.wait() RETURNS bool LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF current_setting('slow.statement', true) IS DISTINCT FROM statement_timestamp()::text THEN
    PERFORM set_config('slow.statement', statement_timestamp()::text, false);
    PERFORM nextval('slow.calls');
    PERFORM pg_sleep((SELECT seconds FROM slow.delay));
  END IF;
  RETURN true;
END $$;
CREATE POLICY slow ON streams TO {SERVICE_ROLE} USING (slow.wait()) WITH CHECK (true);
ALTER TABLE streams ENABLE ROW LEVEL SECURITY;
"""
RELEASE_STATEMENTS = """
ALTER TABLE streams DISABLE ROW LEVEL SECURITY;
DROP POLICY slow ON streams;
"""


class Delay:
    """Sets the duration of the commits or statements in one database, and counts them."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def set(self, seconds: float) -> None:
        """Make each that begins from now on take these seconds longer."""
        await self._connection.execute("UPDATE slow.delay SET seconds = $1", seconds)

    async def count(self) -> int:
        """Return the number of those that have begun."""
        return int(await self._connection.fetchval(COUNT))


@asynccontextmanager
async def slow_commits(database_url: str) -> AsyncIterator[Delay]:
    """Plant the delay of commits in a database; remove it at the end."""
    async with _planted(database_url, DELAY_COMMITS, RELEASE_COMMITS) as delay:
        yield delay


@asynccontextmanager
async def slow_statements(database_url: str) -> AsyncIterator[Delay]:
    """Plant the delay of statements that touch a stream in a database; remove it at the end."""
    async with _planted(database_url, DELAY_STATEMENTS, RELEASE_STATEMENTS) as delay:
        yield delay


@asynccontextmanager
async def _planted(database_url: str, plant: str, remove: str) -> AsyncIterator[Delay]:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(CREATE + plant)
        yield Delay(connection)
    finally:
        await connection.execute(remove + DROP)
        await connection.close()
