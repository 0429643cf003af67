"""The events that projections and sagas step over; the relay tells them to projectors.

Revision ID: write_model_8
Revises: write_model_7
"""

from alembic import op

from command_server.postgres.schema import RELAY_ROLE
from runtime.skipped_events import COMMENTS, GRANT_SELECT, TABLE

revision = "write_model_8"
down_revision = "write_model_7"


def upgrade() -> None:
    """Add the table; the sagas have it too, and may have a database of their own."""
    for statement in (TABLE, *COMMENTS, GRANT_SELECT.format(role=RELAY_ROLE)):
        op.execute(statement)
