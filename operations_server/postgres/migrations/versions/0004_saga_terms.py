"""The index of the terms by which sagas are found, kept behind the write.

Revision ID: operations_4
Revises: operations_3
"""

from alembic import op

revision = "operations_4"
down_revision = "operations_3"

ROLE = "diptych_operations"
TABLES = """
CREATE TABLE saga_term_segments (until bigint PRIMARY KEY, after bigint NOT NULL UNIQUE);
COMMENT ON TABLE saga_term_segments IS
  'parts of events by position, above `after` and up to `until`, without gaps';
CREATE TABLE saga_terms (term bigint, segment bigint, PRIMARY KEY (term, segment));
COMMENT ON TABLE saga_terms IS 'hashes of ids in first events, with the segments whose events have them'
"""


def upgrade() -> None:
    """Create the tables. They are empty: the operations server fills them, also from earlier events."""
    for statement in filter(str.strip, TABLES.split(";\n")):
        op.execute(statement)
    op.execute(f"GRANT SELECT, INSERT ON saga_term_segments, saga_terms TO {ROLE}")
