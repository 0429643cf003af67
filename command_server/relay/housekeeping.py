"""What a leading relay does beside publishing: count what waits, forget what was published long ago."""

import asyncio
from collections.abc import Callable
from typing import NoReturn

from command_server.relay.outbox import Outbox
from runtime.process import logs

INTERVAL = 10.0
"""Seconds between rounds."""
HURRY = 0.1
"""Seconds between rounds while there is more to delete; commands need PostgreSQL too."""
CHUNK = 5_000
"""Rows deleted in one statement, which takes some 20 ms."""

log = logs.get_logger(__name__)


async def keep_house(outbox: Outbox, retention: float, report: Callable[[int], None]) -> NoReturn:
    """Report how many events are pending and delete old rows, for ever.

    Args:
        outbox: the outbox.
        retention: seconds that a row is kept after it was marked.
        report: takes the number of pending events.
    """
    async with outbox:
        while True:
            deleted = 0
            try:
                report(await outbox.count_pending())
                deleted = await outbox.prune(retention, CHUNK)
            except Exception as error:
                log.warning("The outbox could not be tidied up", reason=f"{type(error).__name__}: {error}")
            await asyncio.sleep(HURRY if deleted == CHUNK else INTERVAL)
