"""Replies to projectors that ask which events they have to skip."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from command_server.relay.replies import Replies
from contracts.skips import PAGE_SIZE, SKIPS_SUBJECT, SkippedEvent, SkipsReply, decode_request, encode
from runtime.jetstream import Connection
from runtime.process import logs
from runtime.skipped_events import name_projection

READ = text("""
SELECT (SELECT incarnation::text FROM relay_state) AS incarnation, number, stream, version
FROM (SELECT) one LEFT JOIN (
  SELECT * FROM skipped_events WHERE consumer = :consumer AND number > :after ORDER BY number LIMIT :limit
) s ON true ORDER BY number
""")

log = logs.get_logger(__name__)


def create_skip_replies(connection: Connection, engine: AsyncEngine) -> Replies:
    """Return the replies from PostgreSQL.

    Args:
        connection: to NATS.
        engine: in the relay's role.
    """

    async def read(data: bytes) -> bytes:
        request = decode_request(data)
        values = {"consumer": name_projection(request.projection), "after": request.after, "limit": PAGE_SIZE}
        async with engine.connect() as connected:
            rows = (await connected.execute(READ, values)).all()
        events = [SkippedEvent(row.number, row.stream, row.version) for row in rows if row.number is not None]
        return encode(SkipsReply(rows[0].incarnation, events))

    failures = logs.RepeatedErrors(log, "Skipped events cannot be read")
    return Replies(connection, SKIPS_SUBJECT, read, failures)
