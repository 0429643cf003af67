"""Seals: checkpoints over all records, the outcomes of acts as rows of their own, and the sealer's role.

Revision ID: operations_10
Revises: operations_9
"""

from alembic import op

from operations_server.postgres.schema import ROLE, SEALER_ROLE
from runtime.migrations import CREATE_ROLE
from runtime.record_tables import refuse_changes

revision = "operations_10"
down_revision = "operations_9"

TABLES = """
CREATE TABLE operator_act_outcomes (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, recorded_at timestamptz NOT NULL DEFAULT now(),
  act bigint NOT NULL, outcome text NOT NULL, duration_us bigint NOT NULL
);
CREATE TABLE audit_checkpoints (
  number bigint PRIMARY KEY, entry text NOT NULL, root bytea NOT NULL, key_id text NOT NULL,
  signature bytea NOT NULL, subtrees bytea[] NOT NULL
);
CREATE TABLE audit_segments (
  record text, until bigint, after bigint NOT NULL, checkpoint bigint NOT NULL, row_count bigint NOT NULL,
  root bytea NOT NULL, keys bytea NOT NULL, marks bytea NOT NULL, PRIMARY KEY (record, until)
);
CREATE TABLE audit_sealer (
  id integer PRIMARY KEY DEFAULT 1, leader text, lease_until timestamptz NOT NULL DEFAULT now(),
  sealed_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO audit_sealer DEFAULT VALUES;
COMMENT ON TABLE operator_act_outcomes IS 'outcomes as they were recorded first';
COMMENT ON TABLE audit_checkpoints IS 'what was recorded since the one before, signed';
COMMENT ON COLUMN audit_checkpoints.entry IS 'its lines before the root: a leaf of the tree';
COMMENT ON COLUMN audit_checkpoints.subtrees IS 'those that this leaf completes, by level';
COMMENT ON TABLE audit_segments IS 'the rows of one record that a checkpoint covers';
COMMENT ON COLUMN audit_segments.keys IS 'of the rows, as compressed differences';
COMMENT ON COLUMN audit_segments.marks IS
  'the first 4 bytes of each leaf, to name the rows that differ; the root alone shows that any does';
COMMENT ON COLUMN audit_sealer.sealed_at IS 'what was recorded until then is sealed'
"""
GRANTS = (
    f"GRANT {SEALER_ROLE} TO CURRENT_USER",
    f"GRANT SELECT, INSERT ON operator_act_outcomes TO {ROLE}",
    f"GRANT SELECT ON audit_checkpoints, audit_segments, audit_sealer TO {ROLE}",
    f"GRANT SELECT ON operator_acts, operator_act_outcomes TO {SEALER_ROLE}",
    f"GRANT SELECT, INSERT ON audit_checkpoints, audit_segments TO {SEALER_ROLE}",
    f"GRANT SELECT, UPDATE ON audit_sealer TO {SEALER_ROLE}",
)
GRANT_EXISTING = """
DO $$ BEGIN
  IF to_regclass('{name}') IS NOT NULL THEN GRANT SELECT ON {name} TO {role}; END IF;
END $$
"""
READERS = ("diptych_reader", "diptych_housekeeping")
"""Roles of the write model that read seals; a database of the sagas alone lacks them."""
GRANT_READERS = """
DO $$ BEGIN
  GRANT SELECT ON audit_checkpoints, audit_segments, operator_acts, operator_act_outcomes TO {role};
EXCEPTION WHEN undefined_object THEN NULL;
END $$
"""
SEALED = ("events", "audit", "refused_calls", "relay_state", "audit_number", "refused_calls_number")
"""Tables and sequences of the write model, as far as this database has them."""


def upgrade() -> None:
    """Create the tables, and a role that reads the records, and writes checkpoints alone."""
    for statement in filter(str.strip, TABLES.split(";\n")):
        op.execute(statement)
    op.execute(CREATE_ROLE.format(role=SEALER_ROLE))
    for grant in GRANTS:
        op.execute(grant)
    for name in SEALED:
        op.execute(GRANT_EXISTING.format(name=name, role=SEALER_ROLE))
    op.execute(GRANT_EXISTING.format(name="audit_number", role="diptych_reader"))
    for role in READERS:
        op.execute(GRANT_READERS.format(role=role))
    for table in ("operator_act_outcomes", "audit_checkpoints", "audit_segments"):
        op.execute(refuse_changes(table, remover="diptych_housekeeping"))
