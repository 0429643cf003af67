"""The event index, by which commands find earlier events of other streams.

It is empty at first. The command server builds it, also from the events that an earlier release recorded.

Revision ID: write_model_5
Revises: write_model_4
"""

from alembic import op

from command_server.postgres.schema import EVENT_INDEX, EVENT_INDEX_PROGRESS, SERVICE_ROLE

revision = "write_model_5"
down_revision = "write_model_4"


def upgrade() -> None:
    """Create the tables, unless the first revision has just created them with all others."""
    for table in (EVENT_INDEX, EVENT_INDEX_PROGRESS):
        table.create(op.get_bind(), checkfirst=True)
    op.execute(f"GRANT SELECT, INSERT ON event_index TO {SERVICE_ROLE}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON event_index_progress TO {SERVICE_ROLE}")
