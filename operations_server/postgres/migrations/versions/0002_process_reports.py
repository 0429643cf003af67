"""The operations server reads the reports of processes about themselves.

Revision ID: operations_2
Revises: operations_1
"""

from alembic import op

from operations_server.postgres.schema import ROLE
from runtime.process_reports.postgres_reports import TABLE

revision = "operations_2"
down_revision = "operations_1"


def upgrade() -> None:
    """Allow it; the table is that of the write model."""
    op.execute(TABLE)
    op.execute(f"GRANT SELECT ON process_reports TO {ROLE}")
