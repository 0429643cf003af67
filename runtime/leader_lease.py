"""The lease of the one process that leads: a row in PostgreSQL, on PostgreSQL's clock.

The lease saves work and keeps relays from disturbing each other. Correctness does not depend on it: a relay
that has not noticed the end of its lease is stopped by the stream's fences and the comparison in every mark.
A lease that lasts longer than DURATION was written while PostgreSQL's clock was ahead, and counts as expired.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, NoReturn
from uuid import uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runtime.process import logs

DURATION = 5.0
"""Seconds that a lease lasts."""
RENEWAL_INTERVAL = 1.5
"""Seconds between renewals."""
STANDBY_INTERVAL = 0.5
"""Seconds between a standby's attempts to acquire the lease."""

ACQUIRE = """
UPDATE {table} SET leader = :holder, lease_until = now() + make_interval(secs => :seconds)
WHERE id = 1 AND (leader = :holder OR leader IS NULL
  OR lease_until NOT BETWEEN now() AND now() + make_interval(secs => :seconds + 1)) RETURNING 1
"""

RELEASE = "UPDATE {table} SET leader = NULL WHERE id = 1 AND leader = :holder"

log = logs.get_logger(__name__)


class LeaseLost(Exception):
    """Another process holds the lease, or this process must not hold it any longer."""


class Lease:
    """This process's access to the lease.

    Args:
        engine: the database with the lease's row.
        can_lead: returns whether this process could do the work; otherwise it leaves the lease to others.
        table: the table with the row, columns `leader` and `lease_until`.
    """

    def __init__(self, engine: AsyncEngine, can_lead: Callable[[], bool], table: str = "relay_state") -> None:
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._can_lead = can_lead
        self._acquire = text(ACQUIRE.format(table=table))
        self._release = text(RELEASE.format(table=table))

    async def run_as_leader(self, *tasks: Callable[[], Coroutine[Any, Any, Any]]) -> NoReturn:
        """Run the tasks whenever this process holds the lease, until cancelled.

        They are cancelled when the lease is lost, and started again when it is acquired again.
        """
        failures = logs.RepeatedErrors(log, "Lease not held")
        while True:
            try:
                if self._can_lead() and await self.acquire():
                    log.info("Lease acquired", holder=self.holder)
                    failures.reset()
                    async with asyncio.TaskGroup() as group:
                        for task in (self.renew_until_lost, *tasks):
                            group.create_task(task())
            except Exception as error:
                failures.report(error)
                await self.release()
                await self._engine.dispose()  # the pooled connections may be dead without an error yet
            await asyncio.sleep(STANDBY_INTERVAL)

    async def acquire(self) -> bool:
        """Acquire or renew the lease for DURATION seconds; return whether this process holds it."""
        # A longer wait could return after the end of the lease that it renews.
        async with asyncio.timeout(DURATION - RENEWAL_INTERVAL), self._engine.connect() as connection:
            result = await connection.execute(self._acquire, {"holder": self.holder, "seconds": DURATION})
            return result.first() is not None

    async def renew_until_lost(self) -> NoReturn:
        """Renew the lease until cancelled.

        Raises:
            LeaseLost: it must not be held any longer.
        """
        while True:
            await asyncio.sleep(RENEWAL_INTERVAL)
            if not self._can_lead():
                raise LeaseLost("this process cannot do the work")
            if not await self.acquire():
                raise LeaseLost("another process holds the lease")

    async def release(self) -> None:
        """Release the lease, so that a standby need not wait for its end. Errors are ignored."""
        with suppress(Exception):
            async with asyncio.timeout(1), self._engine.connect() as connection:
                await connection.execute(self._release, {"holder": self.holder})
