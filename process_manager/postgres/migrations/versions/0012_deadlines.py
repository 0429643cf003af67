"""Deadlines are rows of their own; instances that wait for one already go on as they are.

Revision ID: sagas_12
Revises: sagas_11
"""

from alembic import op

from process_manager.postgres.schema import ROLE

revision = "sagas_12"
down_revision = "sagas_11"

CHANGES = (
    """
    CREATE TABLE saga_deadlines (
      saga text, id text, partition integer NOT NULL, due_at timestamptz NOT NULL, postponed_to timestamptz,
      set_at timestamptz NOT NULL, correlation_id text NOT NULL, traceparent text, PRIMARY KEY (saga, id)
    )
    """,
    "CREATE INDEX saga_deadlines_due ON saga_deadlines (saga, partition, coalesce(postponed_to, due_at))",
    "COMMENT ON COLUMN saga_deadlines.id IS 'of the instance that begins at the deadline'",
    "COMMENT ON COLUMN saga_deadlines.postponed_to IS 'when to look again whether inputs precede it'",
    "COMMENT ON COLUMN saga_deadlines.set_at IS 'when the event that sets it was delivered'",
    "COMMENT ON COLUMN saga_deadlines.correlation_id IS 'of that event'",
    "COMMENT ON COLUMN saga_deadlines.traceparent IS 'of that event'",
    f"GRANT SELECT, INSERT, UPDATE, DELETE ON saga_deadlines TO {ROLE}",
)


def upgrade() -> None:
    """Add the table."""
    for change in CHANGES:
        op.execute(change)
