"""The reports of processes about themselves.

Revision ID: write_model_7
Revises: write_model_6
"""

from alembic import op

from command_server.postgres.schema import RELAY_ROLE, SERVICE_ROLE
from runtime.process_reports.postgres_reports import GRANT, TABLE

revision = "write_model_7"
down_revision = "write_model_6"


def upgrade() -> None:
    """Add the table; the sagas have it too, and may have a database of their own."""
    op.execute(TABLE)
    for role in (SERVICE_ROLE, RELAY_ROLE):
        op.execute(GRANT.format(role=role))
