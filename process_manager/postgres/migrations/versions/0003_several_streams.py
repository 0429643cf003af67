"""Sagas that follow several streams or begin now: positions by stream, checkpoints by type, parked streams.

Revision ID: sagas_3
Revises: sagas_2
"""

from alembic import op
from sqlalchemy import inspect
from sqlalchemy.schema import SetColumnComment

from process_manager.postgres.schema import METADATA

revision = "sagas_3"
down_revision = "sagas_2"

ROLE = "diptych_process_manager"
CHANGES = (
    "ALTER TABLE sagas ADD COLUMN other_streams jsonb NOT NULL DEFAULT '{}'",
    "CREATE INDEX sagas_blocked ON sagas (saga) WHERE blocked_reason <> ''",
    "ALTER TABLE saga_steps ADD COLUMN denied boolean NOT NULL DEFAULT false",
    """
    CREATE TABLE saga_parked_streams (
      saga text, stream text, stream_type text NOT NULL, partition integer NOT NULL, version bigint NOT NULL,
      error text NOT NULL, since timestamptz NOT NULL, PRIMARY KEY (saga, stream)
    )
    """,
    "CREATE TABLE saga_beginnings (saga text PRIMARY KEY, at timestamptz)",
    # A saga that has run before began with the first event.
    "INSERT INTO saga_beginnings (saga) SELECT saga FROM saga_checkpoints UNION SELECT saga FROM sagas",
    "ALTER TABLE saga_checkpoints ADD COLUMN stream_type text NOT NULL DEFAULT ''",
    """
    UPDATE saga_checkpoints SET stream_type = CASE saga
      WHEN 'fulfilment.fulfilment' THEN 'ordering.order'
      WHEN 'inventory.reservation_deadline' THEN 'inventory.reservation'
      WHEN 'banking.hold_deadline' THEN 'banking.hold'
      ELSE ''
    END
    """,
    # Another saga reads its partitions again from the start, and skips the events that it has processed.
    "DELETE FROM saga_checkpoints WHERE stream_type = ''",
    "ALTER TABLE saga_checkpoints ALTER COLUMN stream_type DROP DEFAULT",
    "ALTER TABLE saga_checkpoints DROP CONSTRAINT saga_checkpoints_pkey",
    "ALTER TABLE saga_checkpoints ADD PRIMARY KEY (saga, stream_type, partition)",
    f"GRANT SELECT, INSERT, UPDATE, DELETE ON saga_beginnings, saga_parked_streams TO {ROLE}",
)


def upgrade() -> None:
    """Add the tables and columns; existing sagas keep their positions. Comment all columns."""
    for change in CHANGES:
        op.execute(change)
    inspector = inspect(op.get_bind())
    for table in METADATA.sorted_tables:
        existing = {column["name"] for column in inspector.get_columns(table.name)}
        for column in table.columns:
            if column.name in existing and column.comment:
                op.execute(SetColumnComment(column))
