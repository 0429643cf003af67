"""The maintenance of the outbox by the leading relay: count pending events, delete old rows."""

import asyncio
from collections.abc import Callable
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


async def maintain_outbox(outbox: Outbox, retention: float, report: Callable[[int], None]) -> NoReturn:
    """Report the number of pending events and delete old rows, until cancelled.

    Args:
        outbox: not used by another task.
        retention: seconds that a row is kept after its mark.
        report: called with the number of pending events.
    """
    failures = logs.RepeatedErrors(log, "Outbox maintenance failed")
    async with outbox:
        while True:
            deleted = 0
            try:
                report(await outbox.count_pending())
                deleted = await outbox.prune(retention, PRUNE_LIMIT)
                failures.reset()
            except Exception as error:
                failures.report(error)
            await asyncio.sleep(BUSY_INTERVAL if deleted == PRUNE_LIMIT else INTERVAL)
