"""The pool of an engine is fixed: load opens no sessions beyond its connections."""

import asyncio

from sqlalchemy import text

from runtime.postgres import create_engine

POOL_SIZE = 3
TASKS, TRANSACTIONS = 24, 10


async def test_load_opens_no_sessions_beyond_the_pool(database_url: str) -> None:
    engine = create_engine(database_url, pool_size=POOL_SIZE)
    sessions = set[int]()

    async def work() -> None:
        for _ in range(TRANSACTIONS):
            async with engine.begin() as connection:
                sessions.add(await connection.scalar(text("SELECT pg_backend_pid()")) or 0)

    try:
        await asyncio.gather(*(work() for _ in range(TASKS)))
        assert 1 <= len(sessions) <= POOL_SIZE
    finally:
        await engine.dispose()
