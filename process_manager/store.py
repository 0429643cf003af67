"""Sagas, their steps, timers and progress in PostgreSQL: whatever a saga is told is one transaction.

Two managers that work on the same partition do no harm: progress is compared before it is moved, a saga's
row is locked while it is told something, and a step is answered once.
"""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import and_, func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from process_manager.due_work import Checkpoint, DueStep, DueTimer, is_step, is_timer
from process_manager.schema import CHECKPOINTS, ROLE, SAGAS, STEPS, TIMERS
from process_manager.transaction import Transaction
from runtime.postgres import create_engine

SESSION = {
    "role": ROLE,
    # What a stopped or frozen manager holds, it holds no longer than this.
    "idle_in_transaction_session_timeout": "5s",
    "transaction_timeout": "10s",
}


class SagaStore:
    """Where sagas are kept.

    Args:
        database_url: `postgresql://…`.
    """

    def __init__(self, database_url: str) -> None:
        self.engine: AsyncEngine = create_engine(
            database_url, session=SESSION, pool_size=8, max_overflow=8, pool_timeout=10.0
        )

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()

    async def reachable(self) -> bool:
        """Return whether PostgreSQL answers and takes writes."""
        async with self.engine.connect() as connection:
            return not await connection.scalar(select(func.pg_is_in_recovery()))

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Transaction]:
        """Open a transaction, committed when the block ends and rolled back when it raises."""
        async with self.engine.begin() as connection:
            now: Any = await connection.scalar(select(func.clock_timestamp()))
            yield Transaction(connection, now)

    async def checkpoints(self, saga: str) -> dict[int, Checkpoint]:
        """Return how far a kind of saga has heard each partition's events."""
        async with self.engine.connect() as connection:
            rows = await connection.execute(select(CHECKPOINTS).where(CHECKPOINTS.c.saga == saga))
            return {row.partition: (row.epoch, row.sequence) for row in rows}

    async def due_steps(self, partitions: Collection[int], limit: int) -> list[DueStep]:
        """Return steps to send now, those that have waited longest first."""
        of_saga = and_(STEPS.c.saga == SAGAS.c.saga, STEPS.c.id == SAGAS.c.id)
        found = (
            select(
                *(STEPS.c[name] for name in ("saga", "id", "step", "attempt", "method", "request", "tries")),
                SAGAS.c.correlation_id,
                SAGAS.c.traceparent,
            )
            .join(SAGAS, of_saga)
            .where(STEPS.c.outcome.is_(None), STEPS.c.due_at <= func.now())
            .where(STEPS.c.partition.in_(partitions))
            .order_by(STEPS.c.due_at)
            .limit(limit)
        )
        async with self.engine.connect() as connection:
            rows: Any = await connection.execute(found)
            return [DueStep(*row) for row in rows]

    async def due_timers(self, partitions: Collection[int], limit: int) -> list[DueTimer]:
        """Return timers that have run out, the first ones first."""
        found = (
            select(TIMERS.c.saga, TIMERS.c.id, TIMERS.c.name, TIMERS.c.due_at)
            .where(TIMERS.c.due_at <= func.now(), TIMERS.c.partition.in_(partitions))
            .order_by(TIMERS.c.due_at)
            .limit(limit)
        )
        async with self.engine.connect() as connection:
            return [DueTimer(*row) for row in await connection.execute(found)]

    async def postpone_step(self, step: DueStep, seconds: float, error: str) -> None:
        """Note that a step was sent and had no answer; it is sent again after a while."""
        again = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)
        async with self.engine.begin() as connection:
            await connection.execute(
                update(STEPS)
                .where(is_step(step), STEPS.c.outcome.is_(None))
                .values(tries=STEPS.c.tries + 1, due_at=again, error=error)
            )

    async def postpone_timer(self, timer: DueTimer, seconds: float) -> None:
        """Let a timer run out later."""
        async with self.engine.begin() as connection:
            later = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)
            await connection.execute(update(TIMERS).where(is_timer(timer)).values(due_at=later))
