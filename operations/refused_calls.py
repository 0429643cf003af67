"""Lists the refused calls on record: who was refused, why, and how often."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import text

from command_server.postgres.event_store import session_settings
from command_server.postgres.schema import SERVICE_ROLE
from runtime.postgres import create_engine
from runtime.process.settings import Settings
from runtime.process.terminal import escape

QUERY = text("""
SELECT reason, details ->> 'cause' AS cause, caller, peer, method, details ->> 'key' AS key,
       details ->> 'issuer' AS issuer, sum(calls) AS calls, max(recorded_at) AS last
FROM refused_calls WHERE recorded_at > now() - CAST(:since AS interval)
GROUP BY reason, cause, caller, peer, method, key, issuer ORDER BY calls DESC, last DESC LIMIT :limit
""")
NOTHING = "no refused calls on record"


async def list_refused_calls(settings: Settings, since: timedelta, limit: int) -> str:
    """Return the most frequent refused calls of the time until now, one line for equal ones."""
    engine = create_engine(settings.database_url, session=session_settings(SERVICE_ROLE))
    try:
        async with engine.connect() as connection:
            rows = (await connection.execute(QUERY, {"since": since, "limit": limit})).all()
    finally:
        await engine.dispose()
    return "\n".join(map(_describe, rows)) or NOTHING


def _describe(row: Any) -> str:
    fields: Sequence[tuple[str, str | None]] = (
        ("cause", row.cause),
        ("caller", row.caller),
        ("peer", row.peer),
        ("method", row.method),
        ("key", row.key),
        ("issuer", row.issuer),
    )
    named = "  ".join(f"{name}={escape(value)}" for name, value in fields if value is not None)
    return f"{row.calls:>10,}  last {row.last:%Y-%m-%d %H:%M:%S}Z  {row.reason}  {named}"
