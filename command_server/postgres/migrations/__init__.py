"""How a database comes to the shape of `schema.py`: Alembic revisions, run by `diptych migrate`."""

from alembic import command
from alembic.config import Config


def upgrade(database_url: str) -> None:
    """Bring a database to the newest revision; does nothing where it is there already."""
    config = Config()
    config.set_main_option("script_location", "command_server.postgres:migrations")
    config.attributes["database_url"] = database_url
    command.upgrade(config, "head")
