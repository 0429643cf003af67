"""The record is protected also from its owner, and functions of the owner from the tables of others.

Events, requests, audit and refused calls refuse changes; only housekeeping deletes requests. The functions
that run as owner find tables in their own schema alone: a temporary table of a caller came first, and its
triggers ran as owner.

Revision ID: write_model_10
Revises: write_model_9
"""

from alembic import op
from sqlalchemy import text

from command_server.postgres.schema import HOUSEKEEPING_ROLE, READER_ROLE
from runtime.migrations import CREATE_ROLE
from runtime.record_tables import FUNCTION, REVOKE, refuse_changes

revision = "write_model_10"
down_revision = "write_model_9"

MAKE_MONTH = """
CREATE OR REPLACE FUNCTION make_month(parent regclass, month date) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  child text := parent::text || to_char(month, '_YYYY_MM');
  first timestamptz := date_trunc('month', month::timestamp) AT TIME ZONE 'UTC';
  following timestamptz := (date_trunc('month', month::timestamp) + interval '1 month') AT TIME ZONE 'UTC';
BEGIN
  IF parent::text NOT IN ('audit', 'refused_calls') THEN
    RAISE EXCEPTION 'not a table in partitions by month: %', parent;
  END IF;
  IF to_regclass(child) IS NOT NULL THEN RETURN false; END IF;
  EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent::text);
  -- No row of the month may reach the default partition between the move and the attachment.
  EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', parent::text || '_default');
  EXECUTE format('ALTER TABLE %I DISABLE TRIGGER refuse_change', parent::text || '_default');
  EXECUTE format('WITH moved AS (DELETE FROM %I WHERE recorded_at >= $1 AND recorded_at < $2 RETURNING *)'
    ' INSERT INTO %I SELECT * FROM moved', parent::text || '_default', child) USING first, following;
  EXECUTE format('ALTER TABLE %I ENABLE TRIGGER refuse_change', parent::text || '_default');
  EXECUTE format('CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON %I'
    ' FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', child);
  EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
    parent::text, child, first, following);
  RETURN true;
END $$
"""
OTHERS = ("detach_month", "drop_month", "copy_request_to_audit")
"""The other functions with a search path; a new database does not have the last one."""
PARTITIONS = text("""
SELECT inhrelid::regclass::text FROM pg_inherits
WHERE inhparent IN (to_regclass('audit'), to_regclass('refused_calls'))
""")
READ = (
    *("streams", "snapshots", "events", "event_index", "event_index_progress", "outbox", "relay_state"),
    *("requests", "audit", "refused_calls", "retention", "skipped_events"),
)


def upgrade() -> None:
    """Create the triggers, and the role that reads, for `diptych verify` and `diptych rehearse`."""
    connection = op.get_bind()
    connection.exec_driver_sql(FUNCTION)
    op.execute(REVOKE)
    tables = ["events", "audit", "refused_calls", *connection.scalars(PARTITIONS)]
    for table in tables:
        op.execute(refuse_changes(table))
    op.execute(refuse_changes("requests", remover=HOUSEKEEPING_ROLE))
    connection.exec_driver_sql(MAKE_MONTH)
    for function in OTHERS:
        op.execute(
            f"DO $$ BEGIN ALTER FUNCTION {function} SET search_path FROM CURRENT;"
            " EXCEPTION WHEN undefined_function THEN NULL; END $$"
        )
    op.execute(CREATE_ROLE.format(role=READER_ROLE))
    op.execute(f"GRANT {READER_ROLE} TO CURRENT_USER")
    op.execute(f"GRANT SELECT ON {', '.join(READ)} TO {READER_ROLE}")
