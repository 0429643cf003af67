"""Keys of persons in PostgreSQL, read with a connection of SQLAlchemy."""

from collections.abc import Collection

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.subject_keys import WrappedKey

READ = text("SELECT id, wrapped_by, wrapped FROM subject_keys WHERE id = ANY(:ids)")


async def read_keys(connection: AsyncConnection, ids: Collection[bytes]) -> list[WrappedKey]:
    """Return the existing ones among the keys with these ids."""
    return [WrappedKey(*row) for row in await connection.execute(READ, {"ids": list(ids)})]
