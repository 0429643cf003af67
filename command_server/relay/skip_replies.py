"""Replies to projectors that ask which events they have to skip.

How it works. Every relay replies, whether it leads or not; the projector takes the first reply. The
subscription ends with a client of NATS that was replaced, so it is made again then. A request that gets lost
is repeated by its sender.
"""

import asyncio
from contextlib import suppress
from typing import NoReturn

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from command_server.relay.signals import Signals
from contracts.skips import PAGE_SIZE, SKIPS_SUBJECT, SkippedEvent, SkipsReply, decode_request, encode
from runtime.jetstream import Connection
from runtime.process import logs
from runtime.skipped_events import name_projection

MAX_WAITING = 1_000
"""Requests that wait, at most; others are dropped."""
CHECK_INTERVAL = 0.5
"""Seconds between checks whether the client was replaced."""
READ = text("""
SELECT (SELECT incarnation::text FROM relay_state) AS incarnation, number, stream, version
FROM (SELECT) one LEFT JOIN (
  SELECT * FROM skipped_events WHERE consumer = :consumer AND number > :after ORDER BY number LIMIT :limit
) s ON true ORDER BY number
""")

log = logs.get_logger(__name__)


class SkipReplies:
    """Replies from PostgreSQL.

    Args:
        connection: to NATS.
        engine: in the relay's role.
    """

    def __init__(self, connection: Connection, engine: AsyncEngine) -> None:
        self._connection = connection
        self._signals = Signals(connection)
        self._engine = engine
        self._requests: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(MAX_WAITING)

    async def run(self) -> NoReturn:
        """Reply until cancelled."""
        failures = logs.RepeatedErrors(log, "Skipped events cannot be read")
        while True:
            try:
                await self._connection.wait_until_connected()
                clients = self._connection.clients
                await self._connection.subscribe(SKIPS_SUBJECT, self._receive)
                while clients == self._connection.clients:
                    await self._reply_next()
                    failures.reset()
            except Exception as error:  # PostgreSQL or NATS is away
                failures.report(error)
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
        await self._signals.reply(reply, encode(await self._read(data)))

    async def _read(self, data: bytes) -> SkipsReply:
        request = decode_request(data)
        values = {"consumer": name_projection(request.projection), "after": request.after, "limit": PAGE_SIZE}
        async with self._engine.connect() as connection:
            rows = (await connection.execute(READ, values)).all()
        events = [SkippedEvent(row.number, row.stream, row.version) for row in rows if row.number is not None]
        return SkipsReply(rows[0].incarnation, events)
