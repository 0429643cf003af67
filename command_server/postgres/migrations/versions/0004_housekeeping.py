"""Housekeeping: the times to which each kind was removed, its lease, and its role.

Revision ID: write_model_4
Revises: write_model_3
"""

from alembic import op

from command_server.postgres.schema import HOUSEKEEPING, HOUSEKEEPING_ROLE, RETENTION, SERVICE_ROLE

revision = "write_model_4"
down_revision = "write_model_3"

CREATE_ROLE = f"""
DO $$ BEGIN
  CREATE ROLE {HOUSEKEEPING_ROLE} NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- roles belong to the whole server
END $$
"""
GRANTS = f"""
GRANT SELECT ON retention TO {SERVICE_ROLE};
GRANT SELECT, INSERT, UPDATE ON retention TO {HOUSEKEEPING_ROLE};
GRANT SELECT, UPDATE ON housekeeping TO {HOUSEKEEPING_ROLE};
GRANT SELECT, DELETE ON requests TO {HOUSEKEEPING_ROLE};
GRANT SELECT ON audit, audit_default, refused_calls, refused_calls_default TO {HOUSEKEEPING_ROLE};
GRANT SELECT ON outbox, relay_state TO {HOUSEKEEPING_ROLE};
GRANT EXECUTE ON FUNCTION make_month, drop_month TO {HOUSEKEEPING_ROLE};
"""
DROP_MONTH = """
CREATE OR REPLACE FUNCTION drop_month(parent regclass, month date) RETURNS bigint LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  child text := parent::text || to_char(month, '_YYYY_MM');
  dropped bigint := (SELECT reltuples FROM pg_class WHERE oid = to_regclass(child));
BEGIN
  IF dropped IS NULL OR NOT detach_month(parent, month) THEN RETURN NULL; END IF;
  -- An exact count of a large month would hold the lock of the detachment for long.
  IF dropped < 1000000 THEN EXECUTE format('SELECT count(*) FROM %I', child) INTO dropped; END IF;
  EXECUTE format('DROP TABLE %I', child);
  RETURN dropped;
END $$
"""


def upgrade() -> None:
    """Create the tables where they do not exist yet, and the role with its minimal grants."""
    for table in (RETENTION, HOUSEKEEPING):
        table.create(op.get_bind(), checkfirst=True)
    op.execute("INSERT INTO housekeeping (lease_until) VALUES (now())")
    op.get_bind().exec_driver_sql(DROP_MONTH)
    op.execute(CREATE_ROLE)
    op.execute(f"GRANT {HOUSEKEEPING_ROLE} TO CURRENT_USER")
    for grant in GRANTS.strip().splitlines():
        op.execute(grant)
