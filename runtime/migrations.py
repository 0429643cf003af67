"""Runs the Alembic revisions of a process's tables.

Alembic executes the file `env.py` of the folder with the revisions; that file calls `run_revisions`.
"""

import asyncio

from alembic import command, context
from alembic.config import Config
from sqlalchemy import Connection, text

from runtime.postgres import create_engine

LOCK_KEY = 0x44495054
"""The key of the advisory lock that serialises migrations of one database: `DIPT` in ASCII."""

CREATE_ROLE = """
DO $$ BEGIN
  CREATE ROLE {role} NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- roles belong to the whole server
END $$
"""
SET_SEARCH_PATH = "SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)"
"""Functions take over this path (`SET search_path FROM CURRENT`). As it ends with `pg_temp`, those that run
as owner find our tables before a temporary one of their caller."""


def upgrade(database_url: str, script_location: str) -> None:
    """Upgrade a database to the newest revision, if it is not there already.

    Args:
        database_url: `postgresql://…`.
        script_location: the package with the revisions, `<package>:<folder>`.
    """
    config = Config()
    config.set_main_option("script_location", script_location)
    config.attributes["database_url"] = database_url
    command.upgrade(config, "head")


def run_revisions(version_table: str) -> None:
    """Run the missing revisions in one transaction, one migration at a time per database.

    Args:
        version_table: Alembic's table for the current revision; each process's tables have their own.
    """
    asyncio.run(_run_revisions(version_table))


async def _run_revisions(version_table: str) -> None:
    engine = create_engine(context.config.attributes["database_url"], command_timeout=None)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_run_locked, version_table)
            await connection.commit()
    finally:
        await engine.dispose()


def _run_locked(connection: Connection, version_table: str) -> None:
    context.configure(connection=connection, version_table=version_table)
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
        connection.execute(text(SET_SEARCH_PATH))
        context.run_migrations()
