"""A parked stream notes the version of the latest event that waits.

Revision ID: sagas_5
Revises: sagas_4
"""

from alembic import op
from sqlalchemy import Column
from sqlalchemy.schema import SetColumnComment

from process_manager.postgres.schema import PARKED_STREAMS

revision = "sagas_5"
down_revision = "sagas_4"


def upgrade() -> None:
    """Add the column; 0 in existing rows means that the stream is read to its end."""
    op.execute("ALTER TABLE saga_parked_streams ADD COLUMN latest bigint NOT NULL DEFAULT 0")
    for name in ("latest", "error"):
        column: Column[object] = PARKED_STREAMS.c[name]
        op.execute(SetColumnComment(column))
