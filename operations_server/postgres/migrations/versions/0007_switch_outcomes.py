"""The outcomes of switches, which are recorded before they are done.

Revision ID: operations_7
Revises: operations_6
"""

from alembic import op

revision = "operations_7"
down_revision = "operations_6"

ROLE = "diptych_operations"
STATEMENTS = (
    "ALTER TABLE projection_switches ADD COLUMN outcome text DEFAULT 'DONE'",
    "ALTER TABLE projection_switches ALTER COLUMN outcome DROP DEFAULT",
    "COMMENT ON COLUMN projection_switches.outcome IS"
    " 'DONE, or the reason of a refusal; null if that could not be recorded: the next switch tells'",
    f"GRANT UPDATE (outcome) ON projection_switches TO {ROLE}",
)


def upgrade() -> None:
    """Add the column; what is on record was done."""
    for statement in STATEMENTS:
        op.execute(statement)
