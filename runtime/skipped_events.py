"""The table of skipped events: an operator has had a projection or a saga step over an event for good.

PostgreSQL has the truth. It is never removed: every later build of the projection leaves these events out.
"""

TABLE = """
CREATE TABLE IF NOT EXISTS skipped_events (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  consumer text NOT NULL, stream text NOT NULL, version bigint NOT NULL,
  reason text NOT NULL, subject text NOT NULL, trace_id text, recorded_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (consumer, stream, version)
)
"""
COMMENTS = (
    "COMMENT ON TABLE skipped_events IS 'events that projections and sagas step over, by operators'' acts'",
    "COMMENT ON COLUMN skipped_events.consumer IS 'projection <name> or saga <name>'",
    "COMMENT ON COLUMN skipped_events.subject IS 'of the token of the operator'",
)
GRANT_SELECT = "GRANT SELECT ON skipped_events TO {role}"


def name_projection(projection: str) -> str:
    """Return a projection as a consumer."""
    return f"projection {projection}"


def name_saga(saga: str) -> str:
    """Return a saga as a consumer."""
    return f"saga {saga}"
