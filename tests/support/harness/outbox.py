"""The outbox of a stack."""

import asyncpg

from devstack.stack import Stack


async def count_pending(stack: Stack) -> int:
    """Return the number of unpublished events."""
    connection = await asyncpg.connect(stack.settings.database_url)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM outbox WHERE sequence IS NULL"))
    finally:
        await connection.close()
