"""The refused calls that the process manager records are numbered.

Revision ID: sagas_16
Revises: sagas_15
"""

from alembic import op

from process_manager.postgres.schema import ROLE

revision = "sagas_16"
down_revision = "sagas_15"

GRANT = f"""
DO $$ BEGIN
  IF to_regclass('refused_calls_number') IS NOT NULL THEN
    GRANT USAGE ON SEQUENCE refused_calls_number TO {ROLE};
  END IF;
END $$
"""


def upgrade() -> None:
    """Let the process manager's role take numbers, where it may insert."""
    op.execute(GRANT)
