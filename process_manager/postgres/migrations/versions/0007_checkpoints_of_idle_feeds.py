"""Housekeeping advances the checkpoints of idle feeds before it removes messages of the stream.

Revision ID: sagas_7
Revises: sagas_6
"""

from alembic import op

from process_manager.postgres.schema import HOUSEKEEPING_ROLE

revision = "sagas_7"
down_revision = "sagas_6"

GRANTS = (
    f"GRANT SELECT ON saga_beginnings, saga_parked_streams TO {HOUSEKEEPING_ROLE}",
    f"GRANT INSERT, UPDATE (sequence) ON saga_checkpoints TO {HOUSEKEEPING_ROLE}",
)


def upgrade() -> None:
    """Grant it that."""
    for grant in GRANTS:
        op.execute(grant)
