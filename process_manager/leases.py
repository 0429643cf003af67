"""Leases in PostgreSQL that divide the partitions among the process managers.

How it works:

- Every manager renews its membership and its leases once per RENEWAL_INTERVAL, in one statement that also
  tells whether anything has changed: a member has come or gone, or partitions are free.
- Only then it rebalances, in a transaction that an advisory lock runs one at a time. A manager that does not
  get the lock keeps its partitions until its next renewal, since the holder may be frozen. The share of a
  manager is the number of partitions divided by the number of members, rounded up. A manager releases the
  partitions beyond its share, so a manager that joins finds free partitions.
- A manager that stops, releases partitions or needs some notifies the others, which renew at once.
- Membership and leases end with the manager's session (`KeptSession`), so the partitions of a killed manager
  are free at the next renewal of another. Those of a frozen one expire after LEASE seconds by PostgreSQL's
  clock. The manager itself counts them as lost then, by its own clock, and whenever a renewal fails.
- Managers that run the same contexts form a group, which divides all partitions among its members.
- A lease that lasts longer than LONGEST_LEASE was written while PostgreSQL's clock was ahead, and counts as
  expired; so does such a membership.
- Leases only save work: they keep two managers from reading the same events and sending the same steps. If
  two managers work on one partition, locks, checkpoints and request ids keep the result correct.
"""

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from contracts import streams
from process_manager.dispatch.targets import Target
from process_manager.postgres import lease_statements as statements
from process_manager.postgres.store import SagaStore
from runtime.kept_session import KeptSession
from runtime.process import logs
from runtime.process.wakeups import wait_for_any
from runtime.telemetry.metrics import LEASES_LOST

LEASE = 2.0
"""Seconds after which a lease or a membership expires unless it is renewed."""
RENEWAL_INTERVAL = 0.5
"""Seconds."""
LONGEST_LEASE = 6.0
"""Seconds; managers of earlier releases take leases of 5 s."""

log = logs.get_logger(__name__)


class Leases:
    """The leases of one process, kept by `run`.

    Args:
        store: the database.
        contexts: the contexts of this process; managers with the same contexts share the partitions.
    """

    def __init__(self, store: SagaStore, contexts: str) -> None:
        self._session = KeptSession(store.reserved)
        self._contexts = contexts
        self._partitions: frozenset[int] = frozenset()
        self._expire_at = 0.0
        self._notified = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        self.silent_targets: Mapping[str, Target] = {}
        """The targets that do not answer this process; recorded with each renewal, for operators."""

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions leased at the last renewal; none if these leases may have expired."""
        return self._partitions if monotonic() < self._expire_at else frozenset()

    async def run(self, stopping: asyncio.Event) -> None:
        """Renew the leases until the process stops; `leave` then releases them."""
        failures = logs.RepeatedErrors(log, "Lease renewal failed")
        while not stopping.is_set():
            self._notified.clear()
            try:
                await self.renew()
                failures.reset()
            except Exception as error:  # for example, PostgreSQL is unavailable
                failures.report(error)
            await wait_for_any(stopping, self._notified, timeout=RENEWAL_INTERVAL)

    async def renew(self) -> None:
        """Renew leases, acquire free partitions, and release those that exceed the share."""
        began = monotonic()
        if self._partitions and began >= self._expire_at:  # this process was frozen, or too busy
            LEASES_LOST.add(len(self._partitions))
            self._partitions = frozenset()
        try:
            # What takes longer than a lease returns after its end.
            async with asyncio.timeout(LEASE):
                partitions = await self._renew_or_rebalance()
        except BaseException:
            LEASES_LOST.add(len(self._partitions))
            self._partitions = frozenset()
            await self._session.close()  # the others need not wait until the leases expire
            raise
        changed = partitions != self._partitions
        self._partitions, self._expire_at = partitions, began + LEASE
        if changed:
            log.info("Partitions changed", partitions=sorted(partitions))
            for listener in self._listeners:
                listener()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call this whenever a renewal has brought other partitions."""
        self._listeners.append(listener)

    async def _renew_or_rebalance(self) -> frozenset[int]:
        session = await self._open_session()
        row: Any = await session.fetchrow(
            statements.RENEW, self._contexts, self._session.name, LEASE, LONGEST_LEASE, *self._list_silent()
        )
        share = -(-streams.PARTITIONS // max(1, row["members"]))
        held = len(row["partitions"])
        free = streams.PARTITIONS - held - row["leased_by_others"]
        if row["is_member"] and not row["ended"] and held <= share and (held == share or free <= 0):
            return frozenset(row["partitions"])
        return await self._rebalance(session, row)

    async def _rebalance(self, session: Any, renewed: Any) -> frozenset[int]:
        contexts, me = self._contexts, self._session.name
        async with session.transaction():
            if not await session.fetchval(statements.TRY_LOCK):
                return frozenset(renewed["partitions"])
            # Also a member at the renewal: it may have been frozen, and removed meanwhile.
            await session.execute(statements.JOIN, contexts, me, LEASE, *self._list_silent())
            await session.execute(statements.DELETE_ENDED_MEMBERS, me, LONGEST_LEASE)
            share = await session.fetchval(statements.COMPUTE_SHARE, contexts, streams.PARTITIONS)
            released = await session.fetch(statements.RELEASE, me, share, LONGEST_LEASE)
            await session.execute(statements.ACQUIRE, contexts, me, LEASE, streams.PARTITIONS, share)
            rows = await session.fetch(statements.LIST_HELD, me)
            if len(rows) < share or any(row["holder"] == me for row in released):
                await session.execute(statements.NOTIFY, contexts)
        return frozenset(row["partition"] for row in rows)

    async def _open_session(self) -> Any:
        name = self._session.name
        session = await self._session.open()
        if self._session.name != name:
            await session.add_listener(statements.CHANNEL, self._on_notification)
        return session

    def _on_notification(self, _connection: object, _pid: int, _channel: str, contexts: object) -> None:
        if contexts == self._contexts:
            self._notified.set()

    def _list_silent(self) -> tuple[list[str], list[float], list[str]]:
        """Return the silent targets, the seconds since when they are silent, and their errors."""
        silent, now = list(self.silent_targets.values()), monotonic()
        return (
            [target.name for target in silent],
            [now - target.silent_since for target in silent],
            [target.error for target in silent],
        )

    async def leave(self) -> None:
        """Release all leases, so that other managers need not wait until they expire."""
        self._partitions = frozenset()
        try:
            async with asyncio.timeout(LEASE):
                session = await self._session.open()
                async with session.transaction():
                    await session.execute(statements.RELEASE_ALL, self._session.name)
                    await session.execute(statements.END_MEMBERSHIP, self._session.name)
                    await session.execute(statements.NOTIFY, self._contexts)
        except Exception as error:
            log.warning("Lease release failed", error=repr(error))
        finally:
            await self._session.close()
