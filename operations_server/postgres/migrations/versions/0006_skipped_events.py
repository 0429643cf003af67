"""The operations server records which events projections and sagas step over.

Revision ID: operations_6
Revises: operations_5
"""

from alembic import op

from runtime.skipped_events import TABLE

revision = "operations_6"
down_revision = "operations_5"

ROLE = "diptych_operations"


def upgrade() -> None:
    """Allow it; the table is that of the write model."""
    op.execute(TABLE)
    op.execute(f"GRANT SELECT, INSERT ON skipped_events TO {ROLE}")
