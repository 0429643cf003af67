"""The lease of the one process that leads: a row in PostgreSQL, on PostgreSQL's clock.

It ends with its holder's session (`KeptSession`), so a standby takes over from a killed leader with its next
attempt; from a frozen one once the lease has expired.

The lease saves work and keeps relays from disturbing each other. Correctness does not depend on it: a relay
that has not noticed the end of its lease is stopped by the stream's fences and the comparison in every mark.
A lease that lasts longer than DURATION was written while PostgreSQL's clock was ahead, and counts as expired.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, NoReturn

from sqlalchemy.ext.asyncio import AsyncEngine

from runtime.kept_session import KeptSession, has_ended
from runtime.process import logs
from runtime.process.lifecycle import cancel_and_wait
from runtime.telemetry.metrics import LEASES_LOST

DURATION = 5.0
"""Seconds that a lease lasts."""
RENEWAL_INTERVAL = 1.5
"""Seconds between renewals."""
STANDBY_INTERVAL = 0.5
"""Seconds between a standby's attempts to acquire the lease."""

ACQUIRE = """
UPDATE {table} SET leader = $1, lease_until = now() + make_interval(secs => $2)
WHERE id = 1 AND (leader = $1 OR leader IS NULL
  OR lease_until NOT BETWEEN now() AND now() + make_interval(secs => $2 + 1)
  OR {has_ended}) RETURNING 1
"""

RELEASE = "UPDATE {table} SET leader = NULL WHERE id = 1 AND leader = $1"

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
        self._engine = engine
        self._session = KeptSession(engine)
        self._can_lead = can_lead
        self.leads = False
        """Whether this process holds the lease, as far as it knows."""
        self._acquire = ACQUIRE.format(table=table, has_ended=has_ended("leader"))
        self._release = RELEASE.format(table=table)

    async def run_as_leader(self, *tasks: Callable[[], Coroutine[Any, Any, Any]]) -> NoReturn:
        """Run the tasks whenever this process holds the lease, until cancelled.

        They are cancelled when the lease is lost, and started again when it is acquired again.
        """
        failures = logs.RepeatedErrors(log, "Lease not held")
        while True:
            try:
                if self._can_lead() and await self.acquire():
                    log.info("Lease acquired", holder=self._session.name)
                    failures.reset()
                    self.leads = True
                    await _run_until_one_ends(self.renew_until_lost, *tasks)
            except Exception as error:
                if self.leads:
                    LEASES_LOST.count()
                self.leads = False
                failures.report(error)
                await self.release()
                await self._engine.dispose()  # the pooled connections may be dead without an error yet
            await asyncio.sleep(STANDBY_INTERVAL)

    async def acquire(self) -> bool:
        """Acquire or renew the lease for DURATION seconds; return whether this process holds it."""
        # A longer wait could return after the end of the lease that it renews.
        try:
            async with asyncio.timeout(DURATION - RENEWAL_INTERVAL):
                session = await self._session.open()
                row = await session.fetchrow(self._acquire, self._session.name, DURATION)
        except BaseException:
            await self._session.close()
            raise
        return row is not None

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
            async with asyncio.timeout(1):
                session = await self._session.open()
                await session.execute(self._release, self._session.name)
        with suppress(Exception):
            await self._session.close()


async def _run_until_one_ends(*tasks: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Run tasks until one of them raises, end the others, and raise its error.

    A task group would cancel each of them once only.
    """
    running = [asyncio.create_task(task()) for task in tasks]
    try:
        ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        await cancel_and_wait(*running)
