"""The steps of sagas that ended long ago are archived: their names and attempts stay in the saga's row.

Revision ID: sagas_6
Revises: sagas_5
"""

from alembic import op
from sqlalchemy.schema import SetColumnComment

from process_manager.postgres.schema import HOUSEKEEPING_ROLE, SAGAS

revision = "sagas_6"
down_revision = "sagas_5"

CREATE_ROLE = f"""
DO $$ BEGIN
  CREATE ROLE {HOUSEKEEPING_ROLE} NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- roles belong to the whole server
END $$
"""
CHANGES = (
    "ALTER TABLE sagas ADD COLUMN archived_steps jsonb",
    "CREATE INDEX sagas_ended ON sagas (status_since, saga, id) WHERE ended",
    CREATE_ROLE,
    f"GRANT {HOUSEKEEPING_ROLE} TO CURRENT_USER",
    f"GRANT SELECT ON sagas, saga_checkpoints TO {HOUSEKEEPING_ROLE}",
    f"GRANT UPDATE (archived_steps) ON sagas TO {HOUSEKEEPING_ROLE}",
    f"GRANT SELECT, DELETE ON saga_steps TO {HOUSEKEEPING_ROLE}",
)


def upgrade() -> None:
    """Add the column, and the grants of the role that archives."""
    for change in CHANGES:
        op.execute(change)
    op.execute(SetColumnComment(SAGAS.c.archived_steps))
