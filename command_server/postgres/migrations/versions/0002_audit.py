"""The audit apart from the answers to repeated requests; audit and refused calls in partitions by month.

The previous release still writes the audit's columns of `requests`; a trigger copies its rows. A later
revision removes the columns and the trigger.

Revision ID: write_model_2
Revises: write_model_1
"""

from alembic import op
from sqlalchemy import Table, inspect

from command_server.postgres.schema import AUDIT, REFUSED_CALLS, SERVICE_ROLE

revision = "write_model_2"
down_revision = "write_model_1"

CHECK_PARENT = """
  IF parent::text NOT IN ('audit', 'refused_calls') THEN
    RAISE EXCEPTION 'not a table in partitions by month: %', parent;
  END IF;
"""

FUNCTIONS = f"""
CREATE FUNCTION make_month(parent regclass, month date) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
DECLARE
  child text := parent::text || to_char(month, '_YYYY_MM');
  first timestamptz := date_trunc('month', month::timestamp) AT TIME ZONE 'UTC';
  following timestamptz := (date_trunc('month', month::timestamp) + interval '1 month') AT TIME ZONE 'UTC';
BEGIN
  {CHECK_PARENT.strip()}
  IF to_regclass(child) IS NOT NULL THEN RETURN false; END IF;
  EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent::text);
  -- No row of the month may reach the default partition between the move and the attachment.
  EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', parent::text || '_default');
  EXECUTE format('WITH moved AS (DELETE FROM %I WHERE recorded_at >= $1 AND recorded_at < $2 RETURNING *)'
    ' INSERT INTO %I SELECT * FROM moved', parent::text || '_default', child) USING first, following;
  EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
    parent::text, child, first, following);
  RETURN true;
END $$;

CREATE FUNCTION detach_month(parent regclass, month date) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
DECLARE
  child text := parent::text || to_char(month, '_YYYY_MM');
BEGIN
  {CHECK_PARENT.strip()}
  IF NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = parent AND inhrelid = to_regclass(child)) THEN
    RETURN false;
  END IF;
  EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent::text, child);
  RETURN true;
END $$;

CREATE FUNCTION drop_month(parent regclass, month date) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
DECLARE
  child text := parent::text || to_char(month, '_YYYY_MM');
  dropped bigint;
BEGIN
  IF to_regclass(child) IS NULL OR NOT detach_month(parent, month) THEN RETURN NULL; END IF;
  EXECUTE format('SELECT count(*) FROM %I', child) INTO dropped;
  EXECUTE format('DROP TABLE %I', child);
  RETURN dropped;
END $$;

REVOKE ALL ON FUNCTION make_month, detach_month, drop_month FROM PUBLIC;
"""  # noqa: S608 - composed of constants of this module only

MAKE_MONTHS = """
SELECT make_month('{table}', month::date) FROM generate_series(
  date_trunc('month', least(now(), {first}) AT TIME ZONE 'UTC'),
  date_trunc('month', now() AT TIME ZONE 'UTC') + interval '2 months', interval '1 month') AS month
"""

AUDIT_COLUMNS = (
    "recorded_at, caller, request_id, type, outcome, stream, on_behalf_of, {correlation_id}, causation_id,"
    " traceparent, duration_us"
)
OLD_AUDIT = AUDIT_COLUMNS.format(correlation_id="nullif(correlation_id, request_id::text)")
COPY_REQUESTS = f"""
INSERT INTO audit ({AUDIT_COLUMNS.format(correlation_id="correlation_id")}) SELECT {OLD_AUDIT} FROM requests r
WHERE NOT EXISTS (SELECT FROM audit a WHERE a.caller = r.caller AND a.request_id = r.request_id)
"""  # noqa: S608 - composed of constants of this module only

COPY_FUNCTION = f"""
CREATE FUNCTION copy_request_to_audit() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO audit ({AUDIT_COLUMNS.format(correlation_id="correlation_id")}) SELECT {OLD_AUDIT}
  FROM (SELECT NEW.*) AS r;
  RETURN NULL;
END $$
"""  # noqa: S608 - composed of constants of this module only
COPY_TRIGGER = """
CREATE TRIGGER requests_of_the_previous_release AFTER INSERT ON requests
FOR EACH ROW WHEN (NEW.stream IS NOT NULL) EXECUTE FUNCTION copy_request_to_audit()
"""


def upgrade() -> None:
    """Create the partitioned tables, then carry the rows over.

    A new database has the tables already, without partitions. An existing one takes commands meanwhile:
    `requests` is locked only for the rows that were recorded during the first copy.
    """
    connection = op.get_bind()
    for function in FUNCTIONS.split(";\n\n"):
        connection.exec_driver_sql(function)
    if "duration_us" not in {column["name"] for column in inspect(connection).get_columns("requests")}:
        _partition(AUDIT, first="now()")
        _partition(REFUSED_CALLS, first="now()")
        return
    AUDIT.create(connection)
    _partition(AUDIT, first="(SELECT min(recorded_at) FROM requests)")
    op.execute(COPY_REQUESTS)
    _replace_refused_calls()
    _replace_audit_in_requests()


def _partition(table: Table, first: str) -> None:
    """Make a default partition, and those of the months from `first` to the month after the next."""
    op.execute(f"CREATE TABLE {table.name}_default PARTITION OF {table.name} DEFAULT")
    op.execute(f"GRANT SELECT, INSERT ON {table.name} TO {SERVICE_ROLE}")
    op.execute(MAKE_MONTHS.format(table=table.name, first=first))


def _replace_refused_calls() -> None:
    op.execute("ALTER TABLE refused_calls RENAME TO old_refused_calls")
    REFUSED_CALLS.create(op.get_bind())
    _partition(REFUSED_CALLS, first="(SELECT min(recorded_at) FROM old_refused_calls)")
    op.execute(
        "INSERT INTO refused_calls (recorded_at, method, reason, caller, details, peer)"
        " SELECT recorded_at, method, reason, caller, details, peer FROM old_refused_calls ORDER BY id"
    )
    op.execute("DROP TABLE old_refused_calls")


def _replace_audit_in_requests() -> None:
    """Copy the rows that were recorded meanwhile, and from now on those of the previous release."""
    op.execute("LOCK TABLE requests IN ACCESS EXCLUSIVE MODE")
    op.execute(COPY_REQUESTS)
    for name in ("stream", "correlation_id", "duration_us"):
        op.execute(f"ALTER TABLE requests ALTER COLUMN {name} DROP NOT NULL")
    op.execute("CREATE INDEX requests_recorded_at ON requests (recorded_at)")
    op.execute(COPY_FUNCTION)
    op.execute(COPY_TRIGGER)
