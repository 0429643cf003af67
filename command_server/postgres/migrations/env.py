"""Alembic's entry: run the revisions in one transaction, one migration at a time on one database."""

import asyncio

from alembic import context
from sqlalchemy import Connection, text

from runtime.postgres import create_engine

ONE_AT_A_TIME = 0x44495054


def _run(connection: Connection) -> None:
    context.configure(connection=connection)
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ONE_AT_A_TIME})
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
