"""What was exported, and what housekeeping has removed of sealed records.

Revision ID: operations_12
Revises: operations_11
"""

from alembic import op

from operations_server.postgres.schema import AUDITOR_ROLE, ROLE
from runtime.migrations import CREATE_ROLE
from runtime.record_tables import refuse_changes

revision = "operations_12"
down_revision = "operations_11"

TABLES = """
CREATE TABLE audit_exports (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, exported_at timestamptz NOT NULL DEFAULT now(),
  first_checkpoint bigint NOT NULL, last_checkpoint bigint NOT NULL, complete_until timestamptz NOT NULL,
  file_digest bytea NOT NULL
);
CREATE TABLE audit_removals (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, removed_at timestamptz NOT NULL DEFAULT now(),
  record text NOT NULL, until bigint NOT NULL, before timestamptz NOT NULL
);
CREATE INDEX audit_removals_record ON audit_removals (record, until);
CREATE TABLE audit_removed_rows (
  record text, key bigint, leaf bytea, recorded_at timestamptz NOT NULL, PRIMARY KEY (record, key, leaf)
);
COMMENT ON TABLE audit_exports IS 'files with all records of a range of checkpoints';
COMMENT ON COLUMN audit_exports.complete_until IS 'what was recorded before is in it or an earlier one';
COMMENT ON COLUMN audit_exports.file_digest IS 'SHA-256 of the file';
COMMENT ON TABLE audit_removals IS 'what housekeeping has removed: the segments up to a key as a whole';
COMMENT ON TABLE audit_removed_rows IS
  'leaves of removed rows in segments of which other rows are kept, so that their roots can be computed'
"""
STATEMENTS = (
    # Nothing is sealed before the first round.
    "ALTER TABLE audit_sealer ALTER COLUMN sealed_at SET DEFAULT '-infinity'",
    "UPDATE audit_sealer SET sealed_at = '-infinity' WHERE NOT EXISTS (SELECT FROM audit_checkpoints)",
    f"GRANT {AUDITOR_ROLE} TO CURRENT_USER",
    f"GRANT SELECT ON audit_exports, audit_removals, audit_removed_rows TO {ROLE}",
)
AUDITED = (
    *("audit_checkpoints", "audit_segments", "audit_exports", "audit_removals", "audit_removed_rows"),
    *("operator_acts", "operator_act_outcomes", "audit_sealer"),
)
GRANT_OTHERS = f"""
DO $$ BEGIN
  GRANT SELECT ON {", ".join(AUDITED)} TO diptych_reader, {AUDITOR_ROLE};
  GRANT SELECT ON events, audit, refused_calls, reads, requests, streams, retention TO {AUDITOR_ROLE};
  GRANT INSERT ON audit_exports TO {AUDITOR_ROLE};
  GRANT SELECT ON {", ".join(AUDITED)} TO diptych_housekeeping;
  GRANT INSERT ON audit_removals TO diptych_housekeeping;
  GRANT INSERT, DELETE ON audit_removed_rows TO diptych_housekeeping;
  GRANT DELETE ON operator_act_outcomes TO diptych_housekeeping;
EXCEPTION WHEN undefined_object OR undefined_table THEN NULL; -- a database of the sagas alone
END $$
"""


def upgrade() -> None:
    """Create the tables, and the role of exports."""
    for statement in filter(str.strip, TABLES.split(";\n")):
        op.execute(statement)
    op.execute(CREATE_ROLE.format(role=AUDITOR_ROLE))
    for statement in STATEMENTS:
        op.execute(statement)
    op.execute(GRANT_OTHERS)
    op.execute(refuse_changes("audit_exports"))
    op.execute(refuse_changes("audit_removals"))
    op.execute(refuse_changes("audit_removed_rows", remover="diptych_housekeeping"))
