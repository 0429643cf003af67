"""Tables of sagas, steps, timers, operator actions, checkpoints and leases, and the role that uses them.

Revision ID: sagas_1
Revises:
"""

from alembic import op

from process_manager.schema import METADATA, ROLE

revision = "sagas_1"
down_revision = None

CREATE_ROLE = f"""
DO $$ BEGIN
  CREATE ROLE {ROLE} NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- roles belong to the whole cluster
END $$
"""


def upgrade() -> None:
    """Create the tables, and a role that may use nothing else."""
    METADATA.create_all(op.get_bind())
    op.execute(CREATE_ROLE)
    op.execute(f"GRANT {ROLE} TO CURRENT_USER")
    tables = ", ".join(METADATA.tables)
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {ROLE}")
