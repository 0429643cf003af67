"""The chains of events, and what seals need: numbers of audit rows and refused calls, digests of requests.

Rows from before have none of it, and rows of the previous release no digests: a chain begins with the
stream's next event, and the sealer covers the other rows by their columns.

Revision ID: write_model_9
Revises: write_model_8
"""

from alembic import op

revision = "write_model_9"
down_revision = "write_model_8"

NUMBERED = ("audit", "refused_calls")
STATEMENTS = (
    "ALTER TABLE streams ADD COLUMN IF NOT EXISTS digest bytea",
    "ALTER TABLE events ADD COLUMN IF NOT EXISTS digest bytea",
    "ALTER TABLE audit ADD COLUMN IF NOT EXISTS request_digest bytea",
)
# Processes of the previous release go on, so whoever may insert may number at once.
GRANT_SEQUENCE = """
DO $$ DECLARE grantee text; BEGIN
  FOR grantee IN SELECT DISTINCT r.rolname FROM pg_roles r
    JOIN LATERAL (SELECT (aclexplode(relacl)).* FROM pg_class WHERE oid = '{table}'::regclass) a
    ON a.grantee = r.oid AND a.privilege_type = 'INSERT' LOOP
    EXECUTE format('GRANT USAGE ON SEQUENCE {table}_number TO %I', grantee);
  END LOOP;
END $$
"""
# A default that comes after its column numbers no existing rows: that would rewrite the table while locked.
NUMBER = (
    "CREATE SEQUENCE IF NOT EXISTS {table}_number",
    "ALTER TABLE {table} ADD COLUMN IF NOT EXISTS number bigint",
    "ALTER TABLE {table} ALTER COLUMN number SET DEFAULT nextval('{table}_number')",
    "CREATE INDEX {table}_number_index ON {table} USING brin (number) WITH (autosummarize = on)",
    GRANT_SEQUENCE,
)


def upgrade() -> None:
    """Add the columns; a new database has them already."""
    for statement in STATEMENTS:
        op.execute(statement)
    for table in NUMBERED:
        for statement in NUMBER:
            op.execute(statement.format(table=table))
