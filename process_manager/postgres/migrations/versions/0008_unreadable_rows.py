"""Instances whose rows cannot be read are marked; their timers are postponed without losing their times.

Revision ID: sagas_8
Revises: sagas_7
"""

from alembic import op

revision = "sagas_8"
down_revision = "sagas_7"

CHANGES = (
    "ALTER TABLE sagas ADD COLUMN unreadable boolean NOT NULL DEFAULT false",
    "COMMENT ON COLUMN sagas.unreadable IS 'whether a manager could not read this row; its inputs wait'",
    "CREATE INDEX sagas_open ON sagas (saga, id) WHERE ended IS false OR unreadable",
    "ALTER TABLE saga_timers ADD COLUMN postponed_to timestamptz",
    "COMMENT ON COLUMN saga_timers.postponed_to IS 'when to fire it, after a delivery that failed'",
    "DROP INDEX saga_timers_due",
    "CREATE INDEX saga_timers_due ON saga_timers (saga, partition, coalesce(postponed_to, due_at))",
)


def upgrade() -> None:
    """Add the columns, and indexes of open instances and due timers."""
    for change in CHANGES:
        op.execute(change)
