"""The index of records, kept behind the write: segments of events and of requests, and the terms in each.

Revision ID: operations_3
Revises: operations_2
"""

from alembic import op

revision = "operations_3"
down_revision = "operations_2"

ROLE = "diptych_operations"
HOUSEKEEPING_ROLE = "diptych_housekeeping"
TABLES = """
CREATE TABLE event_segments (
  until bigint PRIMARY KEY, after bigint NOT NULL UNIQUE, min_time timestamptz NOT NULL,
  max_time timestamptz NOT NULL, events integer NOT NULL
);
COMMENT ON TABLE event_segments IS
  'parts of events by position, above `after` and up to `until`, without gaps';
CREATE TABLE event_terms (term bigint, segment bigint, PRIMARY KEY (term, segment));
COMMENT ON TABLE event_terms IS 'hashes of types and ids, with the segments whose events have them';
CREATE TABLE request_segments (
  until timestamptz PRIMARY KEY, after timestamptz NOT NULL UNIQUE, requests integer NOT NULL
);
COMMENT ON TABLE request_segments IS
  'parts of the audit by time, above `after` and up to `until`, without gaps';
CREATE TABLE request_terms (term bigint, segment timestamptz, PRIMARY KEY (term, segment));
CREATE INDEX request_terms_segment ON request_terms USING brin (segment);
COMMENT ON TABLE request_terms IS
  'hashes of ids, callers, commands, outcomes and streams, with the segments whose requests have them'
"""
GRANT_HOUSEKEEPING = f"""
DO $$ BEGIN
  GRANT SELECT, DELETE ON request_segments, request_terms TO {HOUSEKEEPING_ROLE};
EXCEPTION WHEN undefined_object THEN NULL; -- a database of the sagas alone
END $$
"""


def upgrade() -> None:
    """Create the tables. They are empty: the operations server fills them, also from earlier records."""
    for statement in filter(str.strip, TABLES.split(";\n")):
        op.execute(statement)
    op.execute(f"GRANT SELECT, INSERT ON event_segments, event_terms TO {ROLE}")
    op.execute(f"GRANT SELECT, INSERT, DELETE ON request_segments, request_terms TO {ROLE}")
    op.execute(GRANT_HOUSEKEEPING)
