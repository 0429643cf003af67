"""The operations server reads the keys of persons, to show their data to those who may see it.

Revision ID: operations_13
Revises: operations_12
"""

from alembic import op

from operations_server.postgres.schema import ROLE

revision = "operations_13"
down_revision = "operations_12"

GRANT = f"""
DO $$ BEGIN
  IF to_regclass('subject_keys') IS NOT NULL THEN GRANT SELECT ON subject_keys TO {ROLE}; END IF;
END $$
"""


def upgrade() -> None:
    """Let it read the table."""
    op.execute(GRANT)
