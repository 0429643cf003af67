"""Streams of JetStream that tests make themselves."""

from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from nats.js.errors import ServerError

from tests.support.harness.waiting import until


async def create_stream(js: JetStreamContext, config: StreamConfig) -> None:
    """Create a stream, once the server has removed the files of a deleted one of its name."""

    async def is_created() -> bool:
        try:
            await js.add_stream(config)
        except ServerError:
            return False
        return True

    await until(is_created)
