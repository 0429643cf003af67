"""Replies to readers of the stream that ask for the keys of persons, wrapped as PostgreSQL has them."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from command_server.relay.replies import Replies
from contracts.subject_keys import KEYS_SUBJECT, MAX_KEYS, KeysReply, WrappedKey, decode_request, encode
from runtime.jetstream import Connection
from runtime.process import logs

READ = text("SELECT id, wrapped_by, wrapped FROM subject_keys WHERE id = ANY(:ids)")

log = logs.get_logger(__name__)


def create_key_replies(connection: Connection, engine: AsyncEngine) -> Replies:
    """Return the replies from PostgreSQL.

    Args:
        connection: to NATS.
        engine: in the relay's role.
    """

    async def read(data: bytes) -> bytes:
        ids = list(decode_request(data).ids)[:MAX_KEYS]
        async with engine.connect() as connected:
            rows = (await connected.execute(READ, {"ids": ids})).all()
        return encode(KeysReply([WrappedKey(*row) for row in rows]))

    failures = logs.RepeatedErrors(log, "Keys of persons cannot be read")
    return Replies(connection, KEYS_SUBJECT, read, failures)
