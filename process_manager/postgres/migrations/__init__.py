"""Alembic revisions that bring a database to the tables in `schema.py`. `diptych migrate` runs them."""

from runtime import migrations


def upgrade(database_url: str) -> None:
    migrations.upgrade(database_url, "process_manager.postgres:migrations")
