"""Leases and memberships belong to a group of managers that run the same contexts. They are made again.

Revision ID: sagas_2
Revises: sagas_1
"""

from alembic import op

from process_manager.postgres.schema import LEASES, MANAGERS, ROLE

revision = "sagas_2"
down_revision = "sagas_1"


def upgrade() -> None:
    """Replace the two tables; managers renew their rows every second."""
    for table in (LEASES, MANAGERS):
        table.drop(op.get_bind())
        table.create(op.get_bind())
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table.name} TO {ROLE}")
