"""Sagas, their steps, timers and progress in PostgreSQL: whatever a saga is told is one transaction.

Two managers that work on the same partition do no harm: progress is compared before it is moved, a saga's
row is locked while it is told something, and a step is answered once.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, and_, delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from process_manager.instance import Instance
from process_manager.saga import Saga, Standing
from process_manager.schema import INTERVENTIONS, PROGRESS, ROLE, SAGAS, STEPS, TIMERS
from runtime import streams

SESSION = {
    "role": ROLE,
    # What a stopped or frozen manager holds, it holds no longer than this.
    "idle_in_transaction_session_timeout": "5s",
    "transaction_timeout": "10s",
}

CHANGING = ("version", "state", "standing", "ended", "waits_for", "trouble", "stuck", "since", "due_at")
"""The columns of a saga that change when it is told something."""

Place = tuple[str, int]
"""An epoch of the stream and a sequence in it."""
NOWHERE: Place = ("", 0)


class Superseded(Exception):
    """Another manager was first: what this one knew no longer holds."""


@dataclass(frozen=True, slots=True)
class DueStep:
    """A step to send, with what its caller needs to know."""

    saga: str
    id: str
    step: str
    attempt: int
    method: str
    request: bytes
    tries: int
    correlation_id: str
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class DueTimer:
    """A timer that has run out."""

    saga: str
    id: str
    name: str
    due_at: datetime


class SagaStore:
    """Where sagas are kept.

    Args:
        database_url: `postgresql://…`.
    """

    def __init__(self, database_url: str) -> None:
        self.engine: AsyncEngine = create_async_engine(
            make_url(database_url).set(drivername="postgresql+asyncpg"),
            connect_args={"server_settings": SESSION, "timeout": 5, "command_timeout": 10},
            pool_size=8,
            max_overflow=8,
            pool_timeout=10,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()

    async def reachable(self) -> bool:
        """Return whether PostgreSQL answers and takes writes."""
        async with self.engine.connect() as connection:
            return not await connection.scalar(select(func.pg_is_in_recovery()))

    @asynccontextmanager
    async def begin(self) -> AsyncIterator["Transaction"]:
        """Open a transaction, committed when the block ends and rolled back when it raises."""
        async with self.engine.begin() as connection:
            now: Any = await connection.scalar(select(func.clock_timestamp()))
            yield Transaction(connection, now)

    async def progress(self, saga: str) -> dict[int, Place]:
        """Return how far a kind of saga has heard each partition's events."""
        async with self.engine.connect() as connection:
            rows = await connection.execute(select(PROGRESS).where(PROGRESS.c.saga == saga))
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

    async def postpone(self, step: DueStep, seconds: float, error: str) -> None:
        """Note that a step was sent and had no answer; it is sent again after a while."""
        again = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)
        async with self.engine.begin() as connection:
            await connection.execute(
                update(STEPS)
                .where(_is_step(step), STEPS.c.outcome.is_(None))
                .values(tries=STEPS.c.tries + 1, due_at=again, error=error)
            )

    async def put_off(self, timer: DueTimer, seconds: float) -> None:
        """Let a timer run out later."""
        async with self.engine.begin() as connection:
            later = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)
            await connection.execute(update(TIMERS).where(_is_timer(timer)).values(due_at=later))


class Transaction:
    """One transaction; made by `SagaStore.begin`.

    Args:
        connection: in which the transaction runs.
        now: the database's time.
    """

    def __init__(self, connection: AsyncConnection, now: datetime) -> None:
        self._connection = connection
        self.now = now

    async def move(self, saga: str, partition: int, old: Place, new: Place) -> None:
        """Move a kind of saga's progress in a partition.

        Raises:
            Superseded: it is not at `old`.
        """
        row = {"saga": saga, "partition": partition, "epoch": new[0], "sequence": new[1]}
        if old == NOWHERE:
            moved = insert(PROGRESS).values(row).on_conflict_do_nothing()
        else:
            moved = (
                update(PROGRESS)  # type: ignore[assignment]
                .where(PROGRESS.c.saga == saga, PROGRESS.c.partition == partition)
                .where(PROGRESS.c.epoch == old[0], PROGRESS.c.sequence == old[1])
                .values(row)
            )
        if (await self._connection.execute(moved)).rowcount != 1:
            raise Superseded(f"{saga} was moved on in partition {partition}")

    async def lock(self, saga: Saga[Any], ids: Collection[str]) -> dict[str, Instance]:
        """Return sagas of a kind by their ids, new ones where there were none, locked until the end."""
        rows = await self._connection.execute(
            select(SAGAS)
            .where(SAGAS.c.saga == saga.name, SAGAS.c.id.in_(ids))
            .order_by(SAGAS.c.id)
            .with_for_update()
        )
        found = {row.id: _instance(saga, row) for row in rows}
        sent = await self._connection.execute(
            select(STEPS.c.id, STEPS.c.step, func.max(STEPS.c.attempt).label("attempts"))
            .where(STEPS.c.saga == saga.name, STEPS.c.id.in_(list(found)))
            .group_by(STEPS.c.id, STEPS.c.step)
        )
        for row in sent:
            found[row.id].attempts[row.step] = row.attempts
        return {id_: found.get(id_) or Instance(saga, id_, saga.initial) for id_ in ids}

    async def answer(self, step: DueStep, outcome: str) -> bool:
        """Record a step's outcome; return False where it has one already."""
        answered = (
            update(STEPS)
            .where(_is_step(step), STEPS.c.outcome.is_(None))
            .values(outcome=outcome, answered_at=self.now, error=None, tries=STEPS.c.tries + 1)
        )
        return (await self._connection.execute(answered)).rowcount == 1

    async def stop(self, timer: DueTimer) -> bool:
        """Take a timer away; return False where it is gone, or set to another time."""
        return (await self._connection.execute(delete(TIMERS).where(_is_timer(timer)))).rowcount == 1

    async def note(self, instance: Instance, wish: str, reason: str, operator: str) -> None:
        """Put on record what an operator wanted of a saga."""
        row = {**_key(instance), "wish": wish, "reason": reason, "operator": operator, "at": self.now}
        await self._connection.execute(insert(INTERVENTIONS).values(row))

    async def write(self, instances: Iterable[Instance]) -> None:
        """Write what sagas have become and what they want."""
        known = [instance for instance in instances if instance.began_at is not None or instance.stuck]
        if not known:
            return
        rows = insert(SAGAS).values([self._row(instance) for instance in known])
        new: Any = rows.excluded
        changed = {name: new[name] for name in CHANGING}
        await self._connection.execute(
            rows.on_conflict_do_update(index_elements=["saga", "id"], set_=changed)
        )
        if steps := [row for instance in known for row in self._steps(instance)]:
            await self._connection.execute(insert(STEPS), steps)
        await self._set_timers(known)

    async def _set_timers(self, instances: Sequence[Instance]) -> None:
        wanted = [(i, name, at) for i in instances for name, at in i.timers.items()]
        rows = [
            {**_key(i), "name": name, "partition": streams.partition(i.id), "due_at": at}
            for i, name, at in wanted
            if at is not None
        ]
        if rows:
            timers = insert(TIMERS).values(rows)
            again = {"due_at": timers.excluded.due_at}
            await self._connection.execute(
                timers.on_conflict_do_update(index_elements=["saga", "id", "name"], set_=again)
            )
        if gone := [(i.saga.name, i.id, name) for i, name, at in wanted if at is None]:
            await self._connection.execute(
                delete(TIMERS).where(tuple_(TIMERS.c.saga, TIMERS.c.id, TIMERS.c.name).in_(gone))
            )

    def _row(self, instance: Instance) -> dict[str, Any]:
        standing = instance.standing
        since = instance.since if instance.since and standing.state == instance.stood else self.now
        return {
            **_key(instance),
            "partition": streams.partition(instance.id),
            "version": instance.version,
            "state": msgspec.to_builtins(instance.state),
            "standing": standing.state,
            "ended": standing.ended,
            "waits_for": standing.waits_for,
            "trouble": standing.trouble,
            "stuck": instance.stuck,
            "correlation_id": instance.correlation_id,
            "traceparent": instance.traceparent,
            "began_at": instance.began_at or self.now,
            "since": since,
            "due_at": _due(standing, since),
        }

    def _steps(self, instance: Instance) -> list[dict[str, Any]]:
        return [
            {
                **_key(instance),
                "partition": streams.partition(instance.id),
                "step": step.step,
                "attempt": step.attempt,
                "number": step.number,
                "method": step.method,
                "request": step.request,
                "request_id": step.request_id,
                "decided_at": self.now,
                "due_at": self.now,
                "tries": 0,
            }
            for step in instance.steps
        ]


def _due(standing: Standing, since: datetime) -> datetime | None:
    """Return until when a saga should stand elsewhere; what needs an operator is overdue at once."""
    if standing.ended or (standing.within is None and not standing.trouble):
        return None
    return since if standing.trouble else since + (standing.within or timedelta())


def _key(instance: Instance) -> dict[str, str]:
    return {"saga": instance.saga.name, "id": instance.id}


def _is_step(step: DueStep) -> ColumnElement[bool]:
    return and_(
        STEPS.c.saga == step.saga,
        STEPS.c.id == step.id,
        STEPS.c.step == step.step,
        STEPS.c.attempt == step.attempt,
    )


def _is_timer(timer: DueTimer) -> ColumnElement[bool]:
    return and_(
        TIMERS.c.saga == timer.saga,
        TIMERS.c.id == timer.id,
        TIMERS.c.name == timer.name,
        TIMERS.c.due_at == timer.due_at,
    )


def _instance(saga: Saga[Any], row: Any) -> Instance:
    state: Mapping[str, Any] = row.state
    return Instance(
        saga,
        row.id,
        msgspec.convert(state, type(saga.initial)),
        row.version,
        row.began_at,
        row.correlation_id,
        row.traceparent,
        stuck=row.stuck,
        stood=row.standing,
        since=row.since,
    )
