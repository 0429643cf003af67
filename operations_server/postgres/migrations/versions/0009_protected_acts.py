"""The record of operators' acts refuses changes, also by its owner.

The operations server completes an act once, with its outcome and duration; housekeeping deletes old acts.

Revision ID: operations_9
Revises: operations_8
"""

from alembic import op

from runtime.record_tables import FUNCTION, REVOKE, refuse_changes

revision = "operations_9"
down_revision = "operations_8"

HOUSEKEEPING_ROLE = "diptych_housekeeping"
_KEPT = "number, recorded_at, subject, on_behalf_of, act, target, request, reason, trace_id"
REFUSE_UPDATE = """
CREATE TRIGGER refuse_update BEFORE UPDATE ON operator_acts FOR EACH ROW
WHEN (OLD.outcome IS NOT NULL OR ROW({old}) IS DISTINCT FROM ROW({new})) EXECUTE FUNCTION refuse_change()
""".format(
    old=", ".join(f"OLD.{name}" for name in _KEPT.split(", ")),
    new=", ".join(f"NEW.{name}" for name in _KEPT.split(", ")),
)


def upgrade() -> None:
    """Create the triggers; the function is the write model's, too."""
    op.get_bind().exec_driver_sql(FUNCTION)
    for statement in (
        REVOKE,
        refuse_changes("operator_acts", operations="DELETE OR TRUNCATE", remover=HOUSEKEEPING_ROLE),
        REFUSE_UPDATE,
    ):
        op.execute(statement)
