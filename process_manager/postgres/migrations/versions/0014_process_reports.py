"""The reports of processes about themselves.

Revision ID: sagas_14
Revises: sagas_13
"""

from alembic import op

from process_manager.postgres.schema import ROLE
from runtime.process_reports.postgres_reports import GRANT, TABLE

revision = "sagas_14"
down_revision = "sagas_13"


def upgrade() -> None:
    """Add the table; the write model has it too, mostly in the same database."""
    op.execute(TABLE)
    op.execute(GRANT.format(role=ROLE))
