"""The write model: streams, events, outbox, requests, refused calls, the relay's state, roles and grants.

Revision ID: write_model_1
Revises:
"""

from alembic import op
from sqlalchemy import text

from command_server.postgres.schema import METADATA, RELAY_ROLE, SERVICE_ROLE
from contracts import incarnations

revision = "write_model_1"
down_revision = None

GRANTS = f"""
GRANT SELECT, INSERT ON events, requests, refused_calls, outbox TO {SERVICE_ROLE};
GRANT SELECT, INSERT, UPDATE ON streams TO {SERVICE_ROLE};
GRANT SELECT ON relay_state TO {SERVICE_ROLE};
GRANT SELECT ON events TO {RELAY_ROLE};
GRANT SELECT, UPDATE, DELETE ON outbox TO {RELAY_ROLE};
GRANT SELECT, UPDATE ON relay_state TO {RELAY_ROLE};
"""

CREATE_ROLE = """
DO $$ BEGIN
  CREATE ROLE {role} NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- roles belong to the whole server
END $$
"""

INSERT_RELAY_STATE = (
    "INSERT INTO relay_state (incarnation, lease_until, sequence) VALUES (:incarnation, now(), 0)"
)

EVENT_LOG = """
CREATE VIEW event_log AS
SELECT e.recorded_at, e.stream, e.version, e.type, e.metadata ->> 'actor' AS actor,
       e.metadata ->> 'command' AS command, e.metadata ->> 'correlation_id' AS correlation_id,
       e.metadata ->> 'causation_id' AS request_id, o.sequence IS NOT NULL AS published,
       e.position, length(e.data) AS bytes
FROM events e LEFT JOIN outbox o USING (position)
"""


def upgrade() -> None:
    """Create the tables, the two roles with their minimal grants, and the view `event_log` for operators."""
    METADATA.create_all(op.get_bind())
    op.get_bind().execute(text(INSERT_RELAY_STATE), {"incarnation": incarnations.create()})
    op.execute(EVENT_LOG)
    for role in (SERVICE_ROLE, RELAY_ROLE):
        op.execute(CREATE_ROLE.format(role=role))
        op.execute(f"GRANT {role} TO CURRENT_USER")
    for grant in GRANTS.strip().splitlines():
        op.execute(grant)
