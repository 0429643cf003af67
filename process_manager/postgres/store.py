"""Saga instances, their steps, timers and checkpoints in PostgreSQL.

Two managers may work on the same partition without harm: see `write_statement.py`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from process_manager.dispatch.step_queue import StepKey
from process_manager.dispatch.targets import PLACES
from process_manager.postgres.due_queries import (
    DUE_STEPS,
    DUE_TIMERS,
    FEED_PROGRESS,
    OPEN_INSTANCES,
    POSTPONE_TIMERS,
    PROGRESS,
)
from process_manager.postgres.due_work import (
    Checkpoint,
    DueStep,
    DueTimer,
    Feed,
    list_keys,
    matches_step,
)
from process_manager.postgres.group_store import SESSION as GROUP_SESSION
from process_manager.postgres.group_store import GroupStore
from process_manager.postgres.schema import BEGINNINGS, PARKED_STREAMS, ROLE, STEPS
from process_manager.postgres.statement_session import StatementSession
from process_manager.queries.feed_reader import read_checkpoints
from process_manager.saga import Saga
from runtime.postgres import autocommit, create_engine

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


@dataclass(frozen=True)
class InstanceProgress:
    """How far an instance is."""

    version: int = 0
    """Of the last processed event of its own stream."""
    pending: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """By step and attempt without an answer: the method."""
    checkpoints: Mapping[Feed, Checkpoint] = field(default_factory=dict)
    """Those of all feeds of its saga, and perhaps of others."""


class FeedProgress(NamedTuple):
    """How far the feeds of some sagas are, as far as it is read at rest."""

    checkpoints_digest: Decimal
    """Of all their checkpoints: the same as long as none of them has changed."""
    waiting: Collection[str]
    """The sagas for which events wait: a stream is parked, or an instance failed."""


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
        self._reserved_statements = autocommit(self.reserved)
        # Each has a connection of its own, so that none waits for the statement of another one.
        self._steps, self._inspection, self._progress = (StatementSession(self.reserved) for _ in range(3))
        self.groups = GroupStore(
            create_engine(database_url, session={**SESSION, **GROUP_SESSION}, pool_size=1, pool_timeout=10.0)
        )

    async def close(self) -> None:
        for session in (self.groups, self._steps, self._inspection, self._progress):
            await session.close()
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
        parameters = {
            "sagas": list(sagas),
            "partitions": list(partitions),
            "limit": limit,
            "known": list_keys(known),
        }
        async with self._reserved_statements.connect() as connection:
            return [DueTimer(*row) for row in await connection.execute(DUE_TIMERS, parameters)]

    async def read_progress(self, timers: Collection[DueTimer]) -> dict[tuple[str, str], InstanceProgress]:
        """Return how far the instances of these timers are, by saga and id."""
        keys = sorted({(timer.saga, timer.id) for timer in timers})
        columns = {"sagas": [saga for saga, _ in keys], "ids": [id_ for _, id_ in keys]}
        async with self._reserved_statements.connect() as connection:
            rows = (await connection.execute(PROGRESS, columns)).all()
            checkpoints = await read_checkpoints(connection, {saga for saga, _ in keys})
        return {
            (row.saga, row.id): InstanceProgress(
                row.version or 0,
                {(step, attempt): method for step, attempt, method in row.pending},
                checkpoints,
            )
            for row in rows
        }

    async def read_open(
        self, sagas: Collection[str], partitions: Collection[int], after: tuple[str, str], limit: int
    ) -> Sequence[Any]:
        """Return the key, and the columns that may be unreadable, of instances that are open or unreadable.

        Args:
            sagas: the names of the sagas.
            partitions: the partitions of the instances.
            after: saga and id after which the page begins.
            limit: the maximum number of instances.
        """
        rows: Sequence[Any] = await self._inspection.fetch(
            OPEN_INSTANCES, list(sagas), list(partitions), *after, limit
        )
        return rows

    async def read_feed_progress(self, sagas: Collection[str]) -> FeedProgress:
        """Return whether the checkpoints of these sagas have changed, and for which of them events wait."""
        (row,) = await self._progress.fetch(FEED_PROGRESS, list(sagas))
        return FeedProgress(*row)

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

    async def postpone_timers(self, pauses: Mapping[DueTimer, float]) -> None:
        """Make expired timers due again after these seconds."""
        if not pauses:
            return
        timers = sorted(pauses, key=lambda timer: (timer.saga, timer.id, timer.name))
        parameters = {
            "sagas": [timer.saga for timer in timers],
            "ids": [timer.id for timer in timers],
            "names": [timer.name for timer in timers],
            "times": [timer.due_at for timer in timers],
            "pauses": [pauses[timer] for timer in timers],
        }
        async with self._reserved_statements.connect() as connection:
            await connection.execute(POSTPONE_TIMERS, parameters)
