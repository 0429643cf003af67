"""Notifies the relay of new events, so that it does not wait for its next poll of the outbox."""

import asyncio
from contextlib import suppress

from contracts.streams import WAKE_SUBJECT
from runtime.jetstream import UNREACHABLE, connect


class RelayNotifier:
    """Sends one core NATS message for all commits since the previous message.

    While NATS is unreachable no message is sent. The relay also polls, so no event is lost.
    """

    def __init__(self, nats_url: str) -> None:
        self._url = nats_url
        self._pending = asyncio.Event()

    def notify(self) -> None:
        """Schedule a message. Returns at once."""
        self._pending.set()

    async def run(self) -> None:
        """Send messages until cancelled."""
        async with await connect(self._url, "command_server") as connection:
            while True:
                await self._pending.wait()
                self._pending.clear()
                with suppress(*UNREACHABLE):
                    await connection.client.publish(WAKE_SUBJECT)
