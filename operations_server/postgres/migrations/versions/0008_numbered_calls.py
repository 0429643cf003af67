"""The refused calls that the operations server records are numbered.

Revision ID: operations_8
Revises: operations_7
"""

from alembic import op

from operations_server.postgres.schema import ROLE

revision = "operations_8"
down_revision = "operations_7"

GRANT = f"""
DO $$ BEGIN
  IF to_regclass('refused_calls_number') IS NOT NULL THEN
    GRANT USAGE ON SEQUENCE refused_calls_number TO {ROLE};
  END IF;
END $$
"""


def upgrade() -> None:
    """Let the operations server's role take numbers, where it may insert."""
    op.execute(GRANT)
