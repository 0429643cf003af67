"""Tells the relay that there is something to publish, so that it need not wait for its next look."""

import asyncio
from contextlib import suppress

from contracts.streams import WAKE_SUBJECT
from runtime.jetstream import UNREACHABLE, connect


class RelayWake:
    """Sends one core NATS message for any number of commits since the last one.

    While NATS is away nothing is sent, and nothing is lost: the relay looks by itself, too.
    """

    def __init__(self, nats_url: str) -> None:
        self._url = nats_url
        self._committed = asyncio.Event()

    def committed(self) -> None:
        """Note that events were committed."""
        self._committed.set()

    async def run(self) -> None:
        """Send until cancelled."""
        async with await connect(self._url, "command_server") as connection:
            while True:
                await self._committed.wait()
                self._committed.clear()
                with suppress(*UNREACHABLE):
                    await connection.client.publish(WAKE_SUBJECT)
