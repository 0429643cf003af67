"""Alembic revisions that bring a database to `schema.py`; run by `diptych migrate`."""

from alembic import command
from alembic.config import Config


def upgrade(database_url: str) -> None:
    """Upgrade a database to the newest revision."""
    config = Config()
    config.set_main_option("script_location", "process_manager:migrations")
    config.attributes["database_url"] = database_url
    command.upgrade(config, "head")
