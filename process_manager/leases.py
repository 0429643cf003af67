"""Partitions shared among process managers: leases in PostgreSQL, which save work.

Correctness never rests on them.
"""

import asyncio
import os
import socket
from uuid import uuid4

from sqlalchemy import text

from contracts import streams
from process_manager.store import SagaStore
from runtime.process import logs

LEASE = 5.0
"""Seconds that a lease or a membership lasts without being renewed."""
TICK = 1.0
"""Seconds between renewals."""

ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(0x53414741)"
JOIN = """
INSERT INTO saga_managers (name, until) VALUES (:me, now() + make_interval(secs => :lease))
ON CONFLICT (name) DO UPDATE SET until = excluded.until
"""
LEAVE = "DELETE FROM saga_managers WHERE name = :me OR until < now()"
GONE = "DELETE FROM saga_managers WHERE until < now()"
SHARE = "SELECT ceil(CAST(:partitions AS numeric) / count(*)) FROM saga_managers"
RELEASE = """
DELETE FROM saga_leases WHERE until < now() OR holder = :me AND partition NOT IN (
  SELECT partition FROM saga_leases WHERE holder = :me ORDER BY partition LIMIT :share
)
"""
TAKE = """
INSERT INTO saga_leases (partition, holder, until)
SELECT partition, :me, now() + make_interval(secs => :lease)
FROM generate_series(0, :partitions - 1) AS partition
WHERE partition NOT IN (SELECT partition FROM saga_leases)
LIMIT greatest(0, :share - (SELECT count(*) FROM saga_leases WHERE holder = :me))
"""
RENEW = """
UPDATE saga_leases SET until = now() + make_interval(secs => :lease) WHERE holder = :me RETURNING partition
"""
GIVE = "DELETE FROM saga_leases WHERE holder = :me"

log = logs.get_logger(__name__)


class Leases:
    """The partitions of one process; `keep` renews them and sees to fair shares."""

    def __init__(self, store: SagaStore) -> None:
        self._engine = store.engine
        self._me = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self.held: frozenset[int] = frozenset()
        """The partitions to work on, as of now."""

    async def keep(self, stopping: asyncio.Event) -> None:
        """Hold a fair share until the process stops, then give everything away."""
        while not stopping.is_set():
            try:
                await self.renew()
            except Exception as error:  # PostgreSQL is away, for instance
                log.warning("Leases cannot be renewed", error=repr(error))
            try:
                await asyncio.wait_for(stopping.wait(), TICK)
            except TimeoutError:
                continue

    async def renew(self) -> None:
        """Renew what is held, take what is free, give away what exceeds the share."""
        facts = {"me": self._me, "lease": LEASE, "partitions": streams.PARTITIONS}
        async with self._engine.begin() as connection:
            for statement in (ONE_AT_A_TIME, JOIN, GONE):
                await connection.execute(text(statement), facts)
            facts["share"] = int(await connection.scalar(text(SHARE), facts) or 1)
            for statement in (RELEASE, TAKE):
                await connection.execute(text(statement), facts)
            held = frozenset(row.partition for row in await connection.execute(text(RENEW), facts))
        if held != self.held:
            log.info("Partitions changed", partitions=sorted(held))
        self.held = held

    async def leave(self) -> None:
        """Give everything away, so that others need not wait for the leases to end."""
        self.held = frozenset()
        try:
            async with self._engine.begin() as connection:
                for statement in (GIVE, LEAVE):
                    await connection.execute(text(statement), {"me": self._me})
        except Exception as error:
            log.warning("Leases could not be given away", error=repr(error))
