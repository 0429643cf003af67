"""Leases in PostgreSQL that divide the partitions among the process managers.

How it works:

- Every manager renews its membership and its leases once per RENEW_INTERVAL, in one transaction. An
  advisory lock runs these transactions one at a time, and PostgreSQL's clock alone decides on expiry.
- The share of a manager is the number of partitions divided by the number of members, rounded up. A manager
  releases the partitions beyond its share, so a manager that joins finds free partitions on its next
  renewal.
- A manager that stops releases everything at once. The leases of a killed manager expire after LEASE
  seconds.
- Managers that run the same contexts form a group, which divides all partitions among its members.
- A lease that lasts longer than LEASE seconds was written while PostgreSQL's clock was ahead, and counts as
  expired; so does such a membership.
- Leases only save work: they keep two managers from reading the same events and sending the same steps. If
  two managers work on one partition, locks, checkpoints and request ids keep the result correct.
"""

import asyncio
import os
import socket
from collections.abc import Mapping
from time import monotonic
from uuid import uuid4

from sqlalchemy import text

from contracts import streams
from process_manager.store import SagaStore
from process_manager.targets import Target
from runtime.process import logs

LEASE = 5.0
"""Seconds after which a lease or a membership expires unless it is renewed."""
RENEWAL_INTERVAL = 1.0
"""Seconds."""

LOCK = "SELECT pg_advisory_xact_lock(0x53414741)"
RENEW_MEMBERSHIP = """
INSERT INTO saga_managers (contexts, name, until, silent_targets)
SELECT :contexts, :me, now() + make_interval(secs => :lease), coalesce(jsonb_object_agg(
  target, jsonb_build_object('since', now() - make_interval(secs => seconds), 'error', error)
), '{}') FROM unnest(CAST(:targets AS text[]), CAST(:seconds AS float[]), CAST(:errors AS text[]))
  AS t (target, seconds, error)
ON CONFLICT (contexts, name) DO UPDATE SET until = excluded.until, silent_targets = excluded.silent_targets
"""
END_MEMBERSHIP = "DELETE FROM saga_managers WHERE name = :me OR until < now()"
DELETE_EXPIRED_MEMBERS = """
DELETE FROM saga_managers WHERE until NOT BETWEEN now() AND now() + make_interval(secs => :lease + 1)
"""
COMPUTE_SHARE = """
SELECT ceil(CAST(:partitions AS numeric) / count(*)) FROM saga_managers WHERE contexts = :contexts
"""
RELEASE_EXCESS = """
DELETE FROM saga_leases
WHERE until NOT BETWEEN now() AND now() + make_interval(secs => :lease + 1)
OR holder = :me AND partition NOT IN (
  SELECT partition FROM saga_leases WHERE holder = :me ORDER BY partition LIMIT :share
)
"""
ACQUIRE = """
INSERT INTO saga_leases (contexts, partition, holder, until)
SELECT :contexts, partition, :me, now() + make_interval(secs => :lease)
FROM generate_series(0, :partitions - 1) AS partition
WHERE partition NOT IN (SELECT partition FROM saga_leases WHERE contexts = :contexts)
LIMIT greatest(0, :share - (SELECT count(*) FROM saga_leases WHERE holder = :me))
"""
RENEW = """
UPDATE saga_leases SET until = now() + make_interval(secs => :lease) WHERE holder = :me RETURNING partition
"""
RELEASE_ALL = "DELETE FROM saga_leases WHERE holder = :me"

log = logs.get_logger(__name__)


class Leases:
    """The leases of one process, kept by `run`.

    Args:
        store: the database.
        contexts: the contexts of this process; managers with the same contexts share the partitions.
    """

    def __init__(self, store: SagaStore, contexts: str) -> None:
        self._engine = store.reserved
        self._contexts = contexts
        self._name = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self.partitions: frozenset[int] = frozenset()
        """The partitions leased at the last renewal."""
        self.silent_targets: Mapping[str, Target] = {}
        """The targets that do not answer this process; recorded with each renewal, for operators."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Renew the leases until the process stops; `leave` then releases them."""
        failures = logs.RepeatedErrors(log, "Lease renewal failed")
        while not stopping.is_set():
            try:
                await self.renew()
                failures.reset()
            except Exception as error:  # for example, PostgreSQL is unavailable
                failures.report(error)
            try:
                await asyncio.wait_for(stopping.wait(), RENEWAL_INTERVAL)
            except TimeoutError:
                continue

    async def renew(self) -> None:
        """Renew leases, acquire free partitions, and release those that exceed the share."""
        silent = list(self.silent_targets.values())
        parameters: dict[str, object] = {
            "targets": [target.name for target in silent],
            "seconds": [monotonic() - target.silent_since for target in silent],
            "errors": [target.error for target in silent],
            "me": self._name,
            "contexts": self._contexts,
            "lease": LEASE,
            "partitions": streams.PARTITIONS,
        }
        async with self._engine.begin() as connection:
            for statement in (LOCK, RENEW_MEMBERSHIP, DELETE_EXPIRED_MEMBERS):
                await connection.execute(text(statement), parameters)
            parameters["share"] = int(await connection.scalar(text(COMPUTE_SHARE), parameters) or 1)
            for statement in (RELEASE_EXCESS, ACQUIRE):
                await connection.execute(text(statement), parameters)
            rows = await connection.execute(text(RENEW), parameters)
            partitions = frozenset(row.partition for row in rows)
        if partitions != self.partitions:
            log.info("Partitions changed", partitions=sorted(partitions))
        self.partitions = partitions

    async def leave(self) -> None:
        """Release all leases, so that other managers need not wait until they expire."""
        self.partitions = frozenset()
        try:
            async with self._engine.begin() as connection:
                for statement in (RELEASE_ALL, END_MEMBERSHIP):
                    await connection.execute(text(statement), {"me": self._name})
        except Exception as error:
            log.warning("Lease release failed", error=repr(error))
