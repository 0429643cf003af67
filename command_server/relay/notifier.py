"""Notifies the relay of new events, so that it does not wait for its next poll of the outbox."""

import asyncio
from contextlib import suppress

from contracts.envelope import DEFAULT_MAX_PAYLOAD
from contracts.streams import WAKE_SUBJECT
from runtime.jetstream import UNREACHABLE, Connection, connect

LIMIT_INTERVAL = 5.0
"""Seconds between readings of the size of messages that NATS accepts."""


class RelayNotifier:
    """Sends one core NATS message for all commits since the previous message.

    While NATS is unreachable no message is sent. The relay also polls, so no event is lost.
    """

    def __init__(self, nats_url: str) -> None:
        self._url = nats_url
        self._pending = asyncio.Event()
        self._connection: Connection | None = None

    @property
    def max_payload(self) -> int:
        """Bytes of a message that NATS accepts: the last known, NATS's default until it is reached."""
        return DEFAULT_MAX_PAYLOAD if self._connection is None else self._connection.max_payload

    def notify(self) -> None:
        """Schedule a message. Returns at once."""
        self._pending.set()

    async def run(self) -> None:
        """Send messages until cancelled."""
        async with await connect(self._url, "command_server") as connection:
            self._connection = connection
            await asyncio.gather(self._send(connection), self._watch_limit(connection))

    async def _send(self, connection: Connection) -> None:
        while True:
            await self._pending.wait()
            self._pending.clear()
            with suppress(*UNREACHABLE):
                await connection.client.publish(WAKE_SUBJECT)

    async def _watch_limit(self, connection: Connection) -> None:
        while True:
            await asyncio.sleep(LIMIT_INTERVAL)
            await connection.refresh_max_payload()
