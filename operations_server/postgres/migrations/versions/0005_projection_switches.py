"""The record of switches between generations of projections.

Revision ID: operations_5
Revises: operations_4
"""

from alembic import op

revision = "operations_5"
down_revision = "operations_4"

ROLE = "diptych_operations"
TABLES = """
CREATE TABLE projection_switches (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  projection text NOT NULL,
  from_generation text NOT NULL,
  to_generation text NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  subject text NOT NULL,
  reason text NOT NULL,
  forced boolean NOT NULL,
  comparison jsonb
);
COMMENT ON TABLE projection_switches IS 'which generation of a projection began to serve when, and why';
COMMENT ON COLUMN projection_switches.comparison IS 'a GenerationComparison; null for a rollback'
"""


def upgrade() -> None:
    """Create the table."""
    for statement in filter(str.strip, TABLES.split(";\n")):
        op.execute(statement)
    op.execute(f"GRANT SELECT, INSERT ON projection_switches TO {ROLE}")
