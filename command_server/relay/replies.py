"""Replies of the relay to requests of other processes, from PostgreSQL.

How it works. Every relay replies, whether it leads or not; the process that asks takes the first reply. The
subscription ends with a client of NATS that was replaced, so it is made again then. A request that gets lost
is repeated by its sender.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NoReturn

from command_server.relay.signals import Signals
from runtime.jetstream import Connection
from runtime.process import logs

MAX_WAITING = 1_000
"""Requests that wait, at most; others are dropped."""
CHECK_INTERVAL = 0.5
"""Seconds between checks whether the client was replaced."""

Read = Callable[[bytes], Awaitable[bytes]]
"""Returns the reply to a request."""


class Replies:
    """Signed replies to the requests of one subject.

    Args:
        connection: to NATS.
        subject: of the requests.
        read: reads a reply; an error delays the replies, and the request gets none.
        failures: reports the errors.
    """

    def __init__(
        self, connection: Connection, subject: str, read: Read, failures: logs.RepeatedErrors
    ) -> None:
        self._connection = connection
        self._subject = subject
        self._read = read
        self._failures = failures
        self._signals = Signals(connection)
        self._requests: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(MAX_WAITING)

    async def run(self) -> NoReturn:
        """Reply until cancelled."""
        while True:
            try:
                await self._connection.wait_until_connected()
                clients = self._connection.clients
                await self._connection.subscribe(self._subject, self._receive)
                while clients == self._connection.clients:
                    await self._reply_next()
                    self._failures.reset()
            except Exception as error:  # PostgreSQL or NATS is away
                self._failures.report(error)
                await asyncio.sleep(CHECK_INTERVAL)

    def _receive(self, _subject: str, reply: str, data: bytes, _headers: object) -> None:
        with suppress(asyncio.QueueFull):
            self._requests.put_nowait((reply, data))

    async def _reply_next(self) -> None:
        try:
            async with asyncio.timeout(CHECK_INTERVAL):
                reply, data = await self._requests.get()
        except TimeoutError:
            return
        await self._signals.reply(reply, await self._read(data))
