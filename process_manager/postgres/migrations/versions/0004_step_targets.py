"""Due steps are read by their target, due timers by their saga; targets that do not answer are on record.

Revision ID: sagas_4
Revises: sagas_3
"""

from alembic import op

revision = "sagas_4"
down_revision = "sagas_3"

CHANGES = (
    "DROP INDEX saga_steps_due",
    """
    CREATE INDEX saga_steps_due ON saga_steps (saga, split_part(method, '/', 2), partition, due_at)
    WHERE outcome IS NULL
    """,
    "DROP INDEX saga_timers_due",
    "CREATE INDEX saga_timers_due ON saga_timers (saga, partition, due_at)",
    # A new database has the column already: sagas_2 creates the table in its newest shape.
    "ALTER TABLE saga_managers ADD COLUMN IF NOT EXISTS silent_targets jsonb NOT NULL DEFAULT '{}'",
    """
    COMMENT ON COLUMN saga_managers.silent_targets
    IS 'by gRPC service that does not answer its steps: the error and since when'
    """,
)


def upgrade() -> None:
    """Replace the two indexes, and add the column."""
    for change in CHANGES:
        op.execute(change)
