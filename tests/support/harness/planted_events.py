"""Events that nothing can read."""

import asyncpg

PLANT = """
WITH changed AS (
  UPDATE streams SET version = version + $2, updated_at = now() WHERE id = $1 RETURNING id, version
), planted AS (
  INSERT INTO events (stream, version, type, data, metadata, recorded_at)
  SELECT id, version, 'diptych.ordering.v1.OrderMystified', '', '{}', now() FROM changed RETURNING position
)
INSERT INTO outbox (position) SELECT position FROM planted
"""
"""Adds an event of a type that this release does not know to a stream."""


async def plant_unknown_event(database_url: str, stream: str, *, missing: int = 0) -> None:
    """Add an event of an unknown type to a stream, for the relay to publish.

    Args:
        database_url: of the stack.
        stream: a stream that exists.
        missing: the number of versions that are left out before the event.
    """
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(PLANT, stream, 1 + missing)
    finally:
        await connection.close()
