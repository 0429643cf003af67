"""Alembic revisions that bring a database to the schema in `schema.py`. `diptych migrate` runs them."""

from alembic import command
from alembic.config import Config


def upgrade(database_url: str) -> None:
    """Upgrade a database to the newest revision, if it is not there already."""
    config = Config()
    config.set_main_option("script_location", "command_server.postgres:migrations")
    config.attributes["database_url"] = database_url
    command.upgrade(config, "head")
