"""Snapshots of long streams that are kept beside those in `streams`.

Revision ID: write_model_3
Revises: write_model_2
"""

from alembic import op

from command_server.postgres.schema import SERVICE_ROLE, SNAPSHOTS

revision = "write_model_3"
down_revision = "write_model_2"


def upgrade() -> None:
    """Create the table, unless the first revision has just created it with all others."""
    SNAPSHOTS.create(op.get_bind(), checkfirst=True)
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON snapshots TO {SERVICE_ROLE}")
