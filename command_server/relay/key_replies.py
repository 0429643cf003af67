"""Replies to readers of the stream that ask for the keys of persons, wrapped as PostgreSQL has them."""

from sqlalchemy.ext.asyncio import AsyncEngine

from command_server.relay.replies import Replies
from contracts.subject_keys import KEYS_SUBJECT, MAX_KEYS, KeysReply, decode_request, encode
from runtime.jetstream import Connection
from runtime.process import logs
from runtime.stored_subject_keys import read_keys

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
            keys = await read_keys(connected, ids)
        return encode(KeysReply(keys))

    failures = logs.RepeatedErrors(log, "Keys of persons cannot be read")
    return Replies(connection, KEYS_SUBJECT, read, failures)
