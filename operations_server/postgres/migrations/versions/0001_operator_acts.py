"""The record of operators' acts, and the role that reads the other processes' tables.

Revision ID: operations_1
Revises:
"""

from alembic import op

revision = "operations_1"
down_revision = None

ROLE = "diptych_operations"
HOUSEKEEPING_ROLE = "diptych_housekeeping"
TABLES = """
CREATE TABLE operator_acts (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, recorded_at timestamptz NOT NULL DEFAULT now(),
  subject text NOT NULL, on_behalf_of text, act text NOT NULL, target text NOT NULL, request jsonb NOT NULL,
  reason text NOT NULL, trace_id text, outcome text, duration_us bigint
);
CREATE INDEX operator_acts_recorded_at ON operator_acts (recorded_at);
COMMENT ON COLUMN operator_acts.subject IS 'of the token of the caller';
COMMENT ON COLUMN operator_acts.target IS 'what the act was about, for people';
COMMENT ON COLUMN operator_acts.outcome IS
  'DONE, or the reason of the error; null while the act goes on, and if its end could not be recorded'
"""
READ_TABLES = (
    *("streams", "snapshots", "events", "event_index", "event_index_progress", "outbox", "relay_state"),
    *("requests", "audit", "refused_calls", "retention"),
    *("sagas", "saga_steps", "saga_timers", "saga_operator_actions", "saga_checkpoints", "saga_leases"),
    *("saga_managers", "saga_beginnings", "saga_callers", "saga_parked_streams", "saga_deadlines"),
)
"""The tables of the other processes that the role reads, as far as this database has them: the sagas may have
one of their own."""
CREATE_ROLE = f"""
DO $$ BEGIN
  CREATE ROLE {ROLE} NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- roles belong to the whole server
END $$
"""
GRANT_EXISTING = """
DO $$ BEGIN
  IF to_regclass('{table}') IS NOT NULL THEN GRANT {rights} ON {table} TO {role}; END IF;
END $$
"""
GRANT_HOUSEKEEPING = f"""
DO $$ BEGIN
  GRANT SELECT, DELETE ON operator_acts TO {HOUSEKEEPING_ROLE};
EXCEPTION WHEN undefined_object THEN NULL; -- a database of the sagas alone
END $$
"""


def upgrade() -> None:
    """Create the table, and a role that reads, and writes nothing but acts and refused calls."""
    for statement in filter(str.strip, TABLES.split(";\n")):
        op.execute(statement)
    op.execute(CREATE_ROLE)
    op.execute(f"GRANT {ROLE} TO CURRENT_USER")
    for table in READ_TABLES:
        op.execute(GRANT_EXISTING.format(table=table, rights="SELECT", role=ROLE))
    op.execute(GRANT_EXISTING.format(table="refused_calls", rights="INSERT", role=ROLE))
    op.execute(f"GRANT SELECT, INSERT, UPDATE (outcome, duration_us) ON operator_acts TO {ROLE}")
    op.execute(GRANT_HOUSEKEEPING)
