"""Sagas, their steps, timers, progress and leases, and who may change them.

Revision ID: 0001_sagas
Revises:
"""

from alembic import op

from process_manager.schema import METADATA, ROLE

revision = "0001_sagas"
down_revision = None

CREATE_ROLE = f"""
DO $$ BEGIN
  CREATE ROLE {ROLE} NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- roles belong to the whole server
END $$
"""


def upgrade() -> None:
    """Make the tables and the narrow role."""
    METADATA.create_all(op.get_bind())
    op.execute(CREATE_ROLE)
    op.execute(f"GRANT {ROLE} TO CURRENT_USER")
    tables = ", ".join(METADATA.tables)
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {ROLE}")
