"""Timers of instances that lack an event are stopped, those of instances that lack one now included.

Revision ID: sagas_11
Revises: sagas_10
"""

from alembic import op

revision = "sagas_11"
down_revision = "sagas_10"

CHANGES = (
    "ALTER TABLE saga_timers ADD COLUMN stopped_at timestamptz",
    "COMMENT ON COLUMN saga_timers.stopped_at IS"
    " 'since when its instance lacks an event that it cannot read'",
    "DROP INDEX saga_timers_due",
    "CREATE INDEX saga_timers_due ON saga_timers (saga, partition, coalesce(postponed_to, due_at))"
    " WHERE stopped_at IS NULL",
    """
    UPDATE saga_timers t SET stopped_at = clock_timestamp() FROM sagas s
    WHERE s.saga = t.saga AND s.id = t.id AND (
      s.failed_input <> '' OR s.unreadable
      OR jsonb_path_exists(s.other_streams, '$.* ? (@.failed_input != "")')
    )
    """,
)


def upgrade() -> None:
    """Add the column, leave stopped timers out of the index of due ones, and stop timers."""
    for change in CHANGES:
        op.execute(change)
