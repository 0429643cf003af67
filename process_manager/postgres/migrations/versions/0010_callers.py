"""The caller of each saga's steps is on record.

Revision ID: sagas_10
Revises: sagas_9
"""

from alembic import op

from process_manager.postgres.schema import ROLE

revision = "sagas_10"
down_revision = "sagas_9"

CHANGES = (
    "CREATE TABLE saga_callers (saga text PRIMARY KEY, subject text NOT NULL, since timestamptz NOT NULL)",
    "COMMENT ON COLUMN saga_callers.subject IS 'of the token with which its steps are sent'",
    "COMMENT ON COLUMN saga_callers.since IS 'when it was recorded or changed'",
    f"GRANT SELECT, INSERT, UPDATE, DELETE ON saga_callers TO {ROLE}",
)


def upgrade() -> None:
    """Add the table; the next process manager of each saga records its subject."""
    for change in CHANGES:
        op.execute(change)
