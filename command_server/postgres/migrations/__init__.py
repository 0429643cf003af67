"""Alembic revisions that bring a database to the write model in `schema.py`. `diptych migrate` runs them."""

from runtime import migrations


def upgrade(database_url: str) -> None:
    migrations.upgrade(database_url, "command_server.postgres:migrations")
