"""The role that reads; and a process manager no longer changes what it recorded of operators' actions.

Revision ID: sagas_17
Revises: sagas_16
"""

from alembic import op

from process_manager.postgres.schema import READER_ROLE, ROLE
from runtime.migrations import CREATE_ROLE

revision = "sagas_17"
down_revision = "sagas_16"

READ = (
    *("sagas", "saga_steps", "saga_timers", "saga_deadlines", "saga_operator_actions", "saga_checkpoints"),
    *("saga_beginnings", "saga_callers", "saga_parked_streams", "skipped_events"),
)
STATEMENTS = (
    CREATE_ROLE.format(role=READER_ROLE),
    f"GRANT {READER_ROLE} TO CURRENT_USER",
    f"GRANT SELECT ON {', '.join(READ)} TO {READER_ROLE}",
    f"REVOKE UPDATE, DELETE ON saga_operator_actions FROM {ROLE}",
)


def upgrade() -> None:
    """Grant and revoke; no row changes."""
    for statement in STATEMENTS:
        op.execute(statement)
