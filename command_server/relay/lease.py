"""Which relay leads: a row in PostgreSQL, on PostgreSQL's clock.

The lease saves relays from getting in each other's way. Correctness does not rest on it: a leader that is
late to notice the lease's end is refused by the stream's fence and by the comparison in every mark.
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

SECONDS = 5.0
"""How long a lease lasts."""
RENEWAL = 1.5
"""Seconds between renewals."""
STANDBY = 0.5
"""Seconds between a standby's attempts to lead."""

TAKE = text("""
UPDATE relay_state SET leader = :holder, lease_until = now() + make_interval(secs => :seconds)
WHERE id = 1 AND (leader = :holder OR leader IS NULL OR lease_until < now()) RETURNING 1
""")

GIVE_BACK = text("UPDATE relay_state SET leader = NULL WHERE id = 1 AND leader = :holder")

log = logs.get_logger(__name__)


class LeaseLost(Exception):
    """This relay leads no longer, or should not."""


class Lease:
    """This relay's claim to lead."""

    def __init__(self, engine: AsyncEngine, able: Callable[[], bool]) -> None:
        """Make a claim.

        Args:
            engine: to the database.
            able: whether this relay could publish; if not, another one had better lead.
        """
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._able = able

    async def lead_or_stand_by(self, *works: Callable[[], Coroutine[Any, Any, Any]]) -> NoReturn:
        """Do these works whenever this relay leads, for ever; they are cancelled when it does not."""
        said = ""
        while True:
            try:
                if self._able() and await self.take():
                    log.info("Leading", holder=self.holder)
                    said = ""
                    async with asyncio.TaskGroup() as group:
                        for work in (self._keep, *works):
                            group.create_task(work())
            except Exception as error:
                errors = error.exceptions if isinstance(error, ExceptionGroup) else [error]
                reason = "; ".join(f"{type(e).__name__}: {e}" for e in errors)
                if reason != said:  # once, not with every attempt
                    log.warning("Not leading", reason=reason)
                    said = reason
                await self.give_back()
                await self._engine.dispose()  # its connections may be dead without saying so
            await asyncio.sleep(STANDBY)

    async def take(self) -> bool:
        """Take or renew the lease; return whether this relay leads for the next SECONDS."""
        async with asyncio.timeout(SECONDS - RENEWAL), self._engine.connect() as connection:
            taken = await connection.execute(TAKE, {"holder": self.holder, "seconds": SECONDS})
            return taken.first() is not None

    async def _keep(self) -> NoReturn:
        while True:
            await asyncio.sleep(RENEWAL)
            if not self._able():
                raise LeaseLost("this relay cannot reach NATS")
            if not await self.take():
                raise LeaseLost("another relay leads")

    async def give_back(self) -> None:
        """Let another relay lead at once, if PostgreSQL can be told."""
        with suppress(Exception):
            async with asyncio.timeout(1), self._engine.connect() as connection:
                await connection.execute(GIVE_BACK, {"holder": self.holder})
