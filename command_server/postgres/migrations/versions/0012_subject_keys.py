"""The keys of persons, with which their data in events is sealed.

Revision ID: write_model_12
Revises: write_model_11
"""

from alembic import op

from command_server.postgres.schema import READER_ROLE, RELAY_ROLE, SERVICE_ROLE

revision = "write_model_12"
down_revision = "write_model_11"

TABLE = """
CREATE TABLE subject_keys (
  subject text PRIMARY KEY, id bytea NOT NULL UNIQUE, wrapped_by text NOT NULL, wrapped bytea,
  created_at timestamptz NOT NULL DEFAULT now(), destroyed_at timestamptz, destroyed_by text, reason text
);
COMMENT ON TABLE subject_keys IS 'the keys of persons, with which their data in events is sealed';
COMMENT ON COLUMN subject_keys.subject IS 'the id of the person';
COMMENT ON COLUMN subject_keys.id IS 'random; sealed data names it';
COMMENT ON COLUMN subject_keys.wrapped_by IS 'the master key, in the key ring';
COMMENT ON COLUMN subject_keys.wrapped IS 'the key, encrypted with the master key; null: it was destroyed';
COMMENT ON COLUMN subject_keys.destroyed_by IS 'who forgot the person'
"""
GRANTS = (
    f"GRANT SELECT, INSERT ON subject_keys TO {SERVICE_ROLE}",
    f"GRANT SELECT ON subject_keys TO {RELAY_ROLE}, {READER_ROLE}",
)


def upgrade() -> None:
    """Create the table."""
    for statement in filter(str.strip, TABLE.split(";\n")):
        op.execute(statement)
    for grant in GRANTS:
        op.execute(grant)
