"""The sealer reads the record of reads.

Revision ID: operations_11
Revises: operations_10
"""

from alembic import op

from operations_server.postgres.schema import ROLE, SEALER_ROLE

revision = "operations_11"
down_revision = "operations_10"

GRANT = """
DO $$ BEGIN
  IF to_regclass('reads') IS NOT NULL THEN GRANT SELECT ON {names} TO {role}; END IF;
END $$
"""


def upgrade() -> None:
    """Let it read the table and its sequence."""
    op.execute(GRANT.format(names="reads, reads_number", role=SEALER_ROLE))
    op.execute(GRANT.format(names="reads", role=ROLE))
