"""Slow statements of command servers: PostgreSQL takes a given time for each that touches a stream."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from command_server.postgres.schema import SERVICE_ROLE

PLANT = f"""
CREATE SCHEMA slow;
GRANT USAGE ON SCHEMA slow TO PUBLIC;
CREATE TABLE slow.delay (seconds float8 NOT NULL);
INSERT INTO slow.delay VALUES (0);
CREATE SEQUENCE slow.statements;
CREATE FUNCTION slow.wait() RETURNS bool LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF current_setting('slow.statement', true) IS DISTINCT FROM statement_timestamp()::text THEN
    PERFORM set_config('slow.statement', statement_timestamp()::text, false);
    PERFORM nextval('slow.statements');
    PERFORM pg_sleep((SELECT seconds FROM slow.delay));
  END IF;
  RETURN true;
END $$;
CREATE POLICY slow ON streams TO {SERVICE_ROLE} USING (slow.wait()) WITH CHECK (true);
ALTER TABLE streams ENABLE ROW LEVEL SECURITY;
"""
REMOVE = """
ALTER TABLE streams DISABLE ROW LEVEL SECURITY;
DROP POLICY slow ON streams;
DROP SCHEMA slow CASCADE;
"""


class SlowStatements:
    """Sets the duration of the statements in one database."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def delay(self, seconds: float) -> None:
        """Make each statement that begins from now on take these seconds longer."""
        await self._connection.execute("UPDATE slow.delay SET seconds = $1", seconds)

    async def count(self) -> int:
        """Return the number of statements so far."""
        return int(await self._connection.fetchval("SELECT last_value FROM slow.statements"))


@asynccontextmanager
async def slow_statements(database_url: str) -> AsyncIterator[SlowStatements]:
    """Plant the delay in a database; remove it at the end."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(PLANT)
        yield SlowStatements(connection)
    finally:
        await connection.execute(REMOVE)
        await connection.close()
