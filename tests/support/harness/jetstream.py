"""Clients of NATS as others write them, and streams of JetStream that tests make themselves."""

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from nats.js.errors import ServerError

from runtime.jetstream.nats_url import parse_nats_url
from tests.support.harness.waiting import until


async def open_client(url: str) -> Client:
    """Return a client of nats-py itself, connected with the user of the URL."""
    parsed = parse_nats_url(url)
    options = {"nkeys_seed": parsed.nkey, "inbox_prefix": parsed.inbox_prefix} if parsed.nkey else {}
    return await nats.connect(parsed.servers, **options)


async def create_stream(js: JetStreamContext, config: StreamConfig) -> None:
    """Create a stream, once the server has removed the files of a deleted one of its name."""

    async def is_created() -> bool:
        try:
            await js.add_stream(config)
        except ServerError:
            return False
        return True

    await until(is_created)
