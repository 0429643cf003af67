"""Alembic revisions that bring a database to the operations server's tables. `diptych migrate` runs them."""

from runtime import migrations


def upgrade(database_url: str) -> None:
    migrations.upgrade(database_url, "operations_server.postgres:migrations")
