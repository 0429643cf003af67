"""The record of reads: who looked at whose objects, where the proto of a method says so.

Revision ID: write_model_11
Revises: write_model_10
"""

from alembic import op

from command_server.postgres.schema import HOUSEKEEPING_ROLE, READER_ROLE
from runtime.grpc.read_table import ROLE
from runtime.migrations import CREATE_ROLE
from runtime.record_tables import refuse_changes

revision = "write_model_11"
down_revision = "write_model_10"

TABLE = """
CREATE SEQUENCE reads_number;
CREATE TABLE reads (
  recorded_at timestamptz NOT NULL DEFAULT now(), caller text NOT NULL, on_behalf_of text,
  method text NOT NULL, ids text[] NOT NULL, trace_id text, number bigint DEFAULT nextval('reads_number')
) PARTITION BY RANGE (recorded_at);
CREATE TABLE reads_default PARTITION OF reads DEFAULT;
CREATE INDEX reads_recorded_at ON reads USING brin (recorded_at);
CREATE INDEX reads_number_index ON reads USING brin (number) WITH (autosummarize = on);
COMMENT ON TABLE reads IS 'who looked at which objects; in partitions by month';
COMMENT ON COLUMN reads.caller IS 'subject of the access token';
COMMENT ON COLUMN reads.on_behalf_of IS 'the person that the caller acts for, from the access token';
COMMENT ON COLUMN reads.ids IS 'of the objects; empty if the method looks at all of them'
"""
# The functions name the tables that they may be called for.
EXTEND = """
DO $$ BEGIN
  EXECUTE replace(
    pg_get_functiondef('{function}'::regproc), '''refused_calls'')', '''refused_calls'', ''reads'')'
  );
END $$
"""
MAKE_MONTHS = """
SELECT make_month('reads', month::date) FROM generate_series(
  date_trunc('month', now() AT TIME ZONE 'UTC'),
  date_trunc('month', now() AT TIME ZONE 'UTC') + interval '2 months', interval '1 month') AS month
"""
GRANTS = (
    f"GRANT {ROLE} TO CURRENT_USER",
    f"GRANT INSERT ON reads TO {ROLE}",
    f"GRANT USAGE ON SEQUENCE reads_number TO {ROLE}",
    f"GRANT SELECT ON reads, reads_default TO {HOUSEKEEPING_ROLE}",
    f"GRANT SELECT ON reads, reads_number TO {READER_ROLE}",
)


def upgrade() -> None:
    """Create the table in partitions by month, and the role of those who insert."""
    for statement in filter(str.strip, TABLE.split(";\n")):
        op.execute(statement)
    for table in ("reads", "reads_default"):
        op.execute(refuse_changes(table))
    for function in ("make_month", "detach_month"):
        op.execute(EXTEND.format(function=function))
    op.execute(MAKE_MONTHS)
    op.execute(CREATE_ROLE.format(role=ROLE))
    for grant in GRANTS:
        op.execute(grant)
