"""Brings the database to the newest revision of every process's tables."""

import asyncio

from alembic.util.exc import CommandError

from command_server.postgres import migrations as write_model
from operations.server_errors import UNREACHABLE, summarize
from operations_server.postgres import migrations as operations_server
from process_manager.postgres import migrations as sagas
from runtime.process.start_error import NotAsked, StartError


async def migrate(database_url: str) -> None:
    """Bring a database to the newest revision; does nothing if it is there already.

    Raises:
        NotAsked: the database cannot be reached, or refuses.
        StartError: it is at a revision that this code does not know.
    """
    try:
        await asyncio.to_thread(upgrade, database_url)
    except UNREACHABLE as error:
        raise NotAsked(f"DIPTYCH_DATABASE_URL: cannot migrate the database: {summarize(error)}") from error
    except CommandError as error:  # it is at a revision that this code does not know
        raise StartError(
            "DIPTYCH_DATABASE_URL: the database is at a revision that this version of Diptych does not know:"
            " a later version migrated it, or one before the first release made it (`make clean-data` removes"
            " the local stack's data)"
        ) from error


def upgrade(database_url: str) -> None:
    """Bring the tables of all processes to their newest revisions."""
    write_model.upgrade(database_url)
    sagas.upgrade(database_url)
    operations_server.upgrade(database_url)  # the last, since its role reads the tables of the others
