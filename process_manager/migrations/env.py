"""Alembic's entry point: runs the revisions in one transaction, one migration at a time per database."""

import asyncio

from alembic import context
from sqlalchemy import Connection, text

from runtime.postgres import create_engine

LOCK_KEY = 0x44495054
VERSIONS = "process_manager_version"
"""Alembic's table for the current revision; the write model has its own."""


def _run(connection: Connection) -> None:
    context.configure(connection=connection, version_table=VERSIONS)
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
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
