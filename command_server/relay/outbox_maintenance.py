"""The maintenance of the outbox: every relay counts pending events, the leading one deletes old rows.

A relay that cannot lead, because NATS is away for instance, is the one that has most to count.
"""

import asyncio
from typing import NoReturn

from command_server.relay.outbox import Outbox
from runtime.process import logs

INTERVAL = 10.0
"""Seconds between rounds."""
BUSY_INTERVAL = 0.1
"""Seconds between rounds while there are more rows to delete. The pause leaves PostgreSQL to the commands."""
PRUNE_LIMIT = 5_000
"""Rows per DELETE, which takes about 20 ms."""

log = logs.get_logger(__name__)


class PendingEvents:
    """The number of pending events, counted again and again whether or not this relay leads.

    Args:
        outbox: not used by another task.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.number: int | None = None
        """None while PostgreSQL does not answer: an old number would look like a true one."""

    async def run(self) -> NoReturn:
        failures = logs.RepeatedErrors(log, "Outbox maintenance failed")
        while True:
            try:
                async with self._outbox:
                    while True:
                        self.number = await self._outbox.count_pending()
                        failures.reset()
                        await asyncio.sleep(INTERVAL)
            except Exception as error:
                self.number = None
                failures.report(error)
                await asyncio.sleep(INTERVAL)


async def prune_outbox(outbox: Outbox, retention: float) -> NoReturn:
    """Delete old rows, until cancelled.

    Args:
        outbox: not used by another task.
        retention: seconds that a row is kept after its mark.
    """
    failures = logs.RepeatedErrors(log, "Outbox maintenance failed")
    async with outbox:
        while True:
            deleted = 0
            try:
                deleted = await outbox.prune(retention, PRUNE_LIMIT)
                failures.reset()
            except Exception as error:
                failures.report(error)
            await asyncio.sleep(BUSY_INTERVAL if deleted == PRUNE_LIMIT else INTERVAL)
