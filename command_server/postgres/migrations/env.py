"""Alembic's entry point: runs the revisions in one transaction, locked against other migrations."""

import asyncio

from alembic import context
from sqlalchemy import Connection, text

from runtime.postgres import create_engine

MIGRATION_LOCK = 0x44495054
"""The key of the advisory lock: `DIPT` in ASCII."""


def _run(connection: Connection) -> None:
    context.configure(connection=connection)
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        context.run_migrations()


async def _migrate() -> None:
    engine = create_engine(context.config.attributes["database_url"], command_timeout=None)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_run)
            await connection.commit()
    finally:
        await engine.dispose()


asyncio.run(_migrate())
