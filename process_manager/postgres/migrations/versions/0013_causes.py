"""Steps, timers and instances have the ids and the trace of the input that caused them.

What is older has none: its steps go on with the ids of the first event of their saga.

Revision ID: sagas_13
Revises: sagas_12
"""

from alembic import op

revision = "sagas_13"
down_revision = "sagas_12"

COMMENTS = {
    "saga_steps": {
        "correlation_id": "of the input that caused the step",
        "causation_id": "the id of that input",
        "traceparent": "of that input",
    },
    "saga_timers": {
        "correlation_id": "of the input that set the timer",
        "causation_id": "the id of that input",
        "traceparent": "of that input",
    },
}


def upgrade() -> None:
    """Add the columns; PostgreSQL writes no row for it."""
    for table, columns in COMMENTS.items():
        for name, comment in columns.items():
            op.execute(f"ALTER TABLE {table} ADD COLUMN {name} text")
            op.execute(f"COMMENT ON COLUMN {table}.{name} IS '{comment}'")
    op.execute("ALTER TABLE sagas ADD COLUMN latest_cause jsonb")
    op.execute(
        "COMMENT ON COLUMN sagas.latest_cause IS"
        " 'of its latest input that was a cause: the ids that steps carry on'"
    )
    op.execute("COMMENT ON COLUMN sagas.correlation_id IS 'of the first event'")
