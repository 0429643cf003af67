"""Notifies the relay of new events, so that it does not wait for its next poll of the outbox."""

import asyncio

from contracts.envelope import DEFAULT_MAX_PAYLOAD
from contracts.streams import WAKE_SUBJECT
from runtime.jetstream import Connection, connect

LIMIT_INTERVAL = 5.0
"""Seconds between readings of the size of messages that NATS accepts."""


class RelayNotifier:
    """Sends a core NATS message for each commit.

    While NATS is unreachable no message is sent. The relay also polls, so no event is lost.
    """

    def __init__(self, nats_url: str) -> None:
        self._url = nats_url
        self._connection: Connection | None = None

    @property
    def max_payload(self) -> int:
        """Bytes of a message that NATS accepts: the last known, NATS's default until it is reached."""
        return DEFAULT_MAX_PAYLOAD if self._connection is None else self._connection.max_payload

    def notify(self) -> None:
        """Send a message. Returns at once; while there is no connection, nothing is sent."""
        if self._connection is not None:
            self._connection.send_signal(WAKE_SUBJECT)

    async def run(self) -> None:
        """Keep a connection until cancelled."""
        async with await connect(self._url, "command_server") as connection:
            self._connection = connection
            while True:
                await asyncio.sleep(LIMIT_INTERVAL)
                await connection.refresh_max_payload()
