"""Saga instances, their steps, timers and checkpoints in PostgreSQL.

Two managers may work on the same partition without harm: see `write_statement.py`.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, astuple
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from process_manager.dispatch.step_queue import StepKey
from process_manager.dispatch.targets import PLACES
from process_manager.postgres.columns import to_columns
from process_manager.postgres.due_queries import DUE_STEPS, DUE_TIMERS, POSTPONE_TIMERS
from process_manager.postgres.due_work import DueStep, DueTimer, Feed, list_instances, matches_step
from process_manager.postgres.group_store import SESSION as GROUP_SESSION
from process_manager.postgres.group_store import GroupStore
from process_manager.postgres.progress_store import ProgressStore
from process_manager.postgres.schema import BEGINNINGS, PARKED_STREAMS, ROLE, STEPS
from process_manager.postgres.statement_session import StatementSession
from process_manager.saga import Saga
from runtime.postgres import autocommit, create_engine
from runtime.skipped_events import name_saga

SESSION = {
    "role": ROLE,
    # Limits how long a stopped or frozen manager keeps its locks.
    "idle_in_transaction_session_timeout": "5s",
    "transaction_timeout": "10s",
}
RESERVED_CONNECTIONS = 8
RESERVED_SESSION = {
    **SESSION,
    # These statements skip rows that are locked. A locked table must not hold up what shares a connection.
    "lock_timeout": "500ms",
}


READ_SKIPS = text("""
SELECT stream, array_agg(version) AS versions FROM skipped_events
WHERE consumer = :consumer AND (CAST(:stream AS text) IS NULL OR stream = :stream) GROUP BY stream
""")


class SagaStore:
    """Reads due work, and holds the pools of connections.

    Args:
        database_url: `postgresql://…`.
    """

    def __init__(self, database_url: str) -> None:
        self.engine: AsyncEngine = create_engine(
            database_url, session=SESSION, pool_size=8, pool_timeout=10.0
        )
        self.reserved: AsyncEngine = create_engine(
            database_url, session=RESERVED_SESSION, pool_size=RESERVED_CONNECTIONS, pool_timeout=10.0
        )
        """For timers, leases and the reading of due work: no other load can use up its connections."""
        # Each statement is a transaction of its own: a frozen process holds no lock.
        self.statements = autocommit(self.engine)
        # Each has a connection of its own, so that neither waits for the statement of the other one.
        self._steps, self._timers = (StatementSession(self.reserved) for _ in range(2))
        self.progress = ProgressStore(self.reserved)
        self.groups = GroupStore(
            create_engine(database_url, session={**SESSION, **GROUP_SESSION}, pool_size=1, pool_timeout=10.0)
        )

    async def close(self) -> None:
        for each in (self.groups, self.progress, self._steps, self._timers):
            await each.close()
        await self.engine.dispose()
        await self.reserved.dispose()

    async def read_parked(self, feed: Feed) -> list[str]:
        """Return the feed's parked streams."""
        columns = PARKED_STREAMS.c
        query = select(columns.stream).where(
            *(columns[name] == value for name, value in asdict(feed).items())
        )
        async with self.statements.connect() as connection:
            return list((await connection.execute(query)).scalars())

    async def read_parked_version(self, feed: Feed, stream: str) -> int | None:
        """Return the version of the first event of a parked stream that waits; None if it is not parked."""
        columns = PARKED_STREAMS.c
        query = select(columns.version).where(columns.saga == feed.saga, columns.stream == stream)
        async with self.statements.connect() as connection:
            version: int | None = await connection.scalar(query)
            return version

    async def read_skips(self, saga: str, stream: str | None = None) -> dict[str, frozenset[int]]:
        """Return the versions that a saga steps over, by stream; those of one stream if it is named."""
        values = {"consumer": name_saga(saga), "stream": stream}
        async with self.statements.connect() as connection:
            rows = await connection.execute(READ_SKIPS, values)
            return {row.stream: frozenset(row.versions) for row in rows}

    async def keep_beginning(self, saga: Saga[Any]) -> datetime | None:
        """Take the moment at which a saga begins, unless it was taken before; return it.

        Returns:
            The time before which no event is delivered; None to begin with the first event.
        """
        at = func.clock_timestamp() if saga.begins == "now" else None
        async with self.statements.connect() as connection:
            await connection.execute(
                insert(BEGINNINGS).values(saga=saga.name, at=at).on_conflict_do_nothing()
            )
        return await self.read_beginning(saga.name)

    async def read_beginning(self, saga: str) -> datetime | None:
        """Return the moment at which a saga begins; None if with the first event, or if it never ran."""
        async with self.statements.connect() as connection:
            at: datetime | None = await connection.scalar(
                select(BEGINNINGS.c.at).where(BEGINNINGS.c.saga == saga)
            )
            return at

    async def read_due_steps(
        self,
        sagas: Collection[str],
        partitions: Collection[int],
        limits: Mapping[str, int],
        known: Iterable[StepKey] = (),
    ) -> list[DueStep]:
        """Return the steps of these sagas to send now, the longest due first.

        Args:
            sagas: the names of the sagas.
            partitions: the partitions of their instances.
            limits: the maximum number of steps of each target; PLACES where it is not named.
            known: the steps to pass over.
        """
        keys = ["/".join(map(str, key)) for key in known]
        rows = await self._steps.fetch(
            DUE_STEPS,
            *(list(sagas), list(partitions), list(limits), list(limits.values()), PLACES, keys),
        )
        return [DueStep(*row) for row in rows]

    async def read_due_timers(
        self,
        sagas: Collection[str],
        partitions: Collection[int],
        limit: int,
        known: Collection[DueTimer] = (),
    ) -> list[DueTimer]:
        """Return the expired timers of these sagas, the longest expired first.

        Args:
            sagas: the names of the sagas.
            partitions: the partitions of their instances.
            limit: the maximum number of timers.
            known: timers whose instances are passed over.
        """
        instances = list_instances(known)
        rows = await self._timers.fetch(DUE_TIMERS, list(sagas), list(partitions), limit, instances)
        return [DueTimer(*row) for row in rows]

    async def postpone_step(self, step: DueStep, seconds: float, error: str, *, denied: bool = False) -> bool:
        """Record a try without an answer, and make the step due again after `seconds`.

        Returns:
            Whether it did: not if the step has an outcome, or another session has locked its row.
        """
        due_at = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)
        pending = select(STEPS.c.step).where(matches_step(step), STEPS.c.outcome.is_(None))
        unlocked = pending.with_for_update(skip_locked=True).cte()
        async with self.statements.connect() as connection:
            result = await connection.execute(
                update(STEPS)
                .where(matches_step(step), STEPS.c.step == unlocked.c.step)
                .values(tries=STEPS.c.tries + 1, due_at=due_at, error=error, denied=denied)
            )
        return bool(result.rowcount)

    async def postpone_timers(self, pauses: Mapping[DueTimer, float]) -> set[DueTimer]:
        """Make expired timers due again after these seconds; return those not locked or gone."""
        if not pauses:
            return set()
        timers = sorted(pauses, key=lambda timer: (timer.saga, timer.id, timer.name))
        rows = ((*astuple(timer), pauses[timer]) for timer in timers)
        postponed = await self._timers.fetch(POSTPONE_TIMERS, *to_columns(rows, 5))
        return {DueTimer(*row) for row in postponed}
