"""The events that sagas step over.

Revision ID: sagas_15
Revises: sagas_14
"""

from alembic import op

from process_manager.postgres.schema import ROLE
from runtime.skipped_events import COMMENTS, GRANT_SELECT, TABLE

revision = "sagas_15"
down_revision = "sagas_14"


def upgrade() -> None:
    """Add the table; the write model has it too, mostly in the same database."""
    for statement in (TABLE, *COMMENTS, GRANT_SELECT.format(role=ROLE)):
        op.execute(statement)
