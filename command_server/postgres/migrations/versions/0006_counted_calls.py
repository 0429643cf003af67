"""Refused calls are counted: one row stands for several equal ones.

The previous release inserts rows without the number, which is 1 for them.

Revision ID: write_model_6
Revises: write_model_5
"""

from alembic import op

revision = "write_model_6"
down_revision = "write_model_5"


def upgrade() -> None:
    """Add the number of calls; a new database has it already."""
    op.execute("ALTER TABLE refused_calls ADD COLUMN IF NOT EXISTS calls bigint NOT NULL DEFAULT 1")
    op.execute("COMMENT ON COLUMN refused_calls.calls IS 'number of equal calls'")
