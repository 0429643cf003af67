"""The process manager records the calls that it refuses in the table of the command servers.

Revision ID: sagas_9
Revises: sagas_8
"""

from alembic import op

from process_manager.postgres.schema import ROLE

revision = "sagas_9"
down_revision = "sagas_8"

GRANT = f"""
DO $$ BEGIN
  IF to_regclass('refused_calls') IS NOT NULL THEN GRANT INSERT ON refused_calls TO {ROLE}; END IF;
END $$
"""
"""Where the sagas have a database of their own, refused calls are in its log alone."""


def upgrade() -> None:
    """Let the process manager's role insert, and nothing else."""
    op.execute(GRANT)
