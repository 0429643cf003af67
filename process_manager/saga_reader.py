"""Sagas as people see them: where they are, what they sent, what they wait for. Nothing is written."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from process_manager.schema import DUE, OPERATOR_ACTIONS, SAGAS, STEPS, TIMERS

NEVER = datetime(9999, 1, 1, tzinfo=UTC)  # the last moment there is would reach PostgreSQL as infinity
"""When a saga is due that may stay where it is for as long as it takes."""

ListPosition = tuple[datetime, datetime, str]
"""Where a saga stands in a list: when it is due (NEVER for not at all), when it began, its id."""


@dataclass(frozen=True, slots=True)
class SentStep:
    """A step that was decided on."""

    step: str
    attempt: int
    method: str
    request_id: UUID
    decided_at: datetime
    answered_at: datetime | None
    outcome: str | None
    tries: int
    error: str | None


@dataclass(frozen=True, slots=True)
class OperatorAction:
    """What an operator wanted."""

    action: str
    reason: str
    operator: str
    at: datetime


@dataclass(frozen=True, slots=True)
class SagaRow:
    """A saga as it is kept."""

    saga: str
    id: str
    version: int
    state: Mapping[str, Any]
    status: str
    ended: bool
    waiting_for: str
    """In words, whatever it is that it waits for; empty where it has ended."""
    blocked_reason: str
    began_at: datetime
    status_since: datetime
    due_at: datetime | None

    @property
    def position(self) -> ListPosition:
        """Where it stands in a list."""
        return self.due_at or NEVER, self.began_at, self.id


@dataclass(frozen=True, slots=True)
class SagaDetails:
    """A saga with all that belongs to it."""

    row: SagaRow
    steps: Sequence[SentStep]
    timers: Mapping[str, datetime]
    operator_actions: Sequence[OperatorAction]


class SagaReader:
    """Reads the process manager's tables.

    Args:
        engine: of the database that has them.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine.execution_options(isolation_level="REPEATABLE READ")

    async def find(self, saga: str, id_: str) -> SagaDetails | None:
        """Return a saga; None where there is none."""
        async with self._engine.connect() as connection:
            rows = await self._rows(connection, _sagas().where(SAGAS.c.saga == saga, SAGAS.c.id == id_))
            if not rows:
                return None
            steps = _of(STEPS, SentStep).where(STEPS.c.saga == saga, STEPS.c.id == id_)
            timers = select(TIMERS.c.name, TIMERS.c.due_at).where(TIMERS.c.saga == saga, TIMERS.c.id == id_)
            wishes = _of(OPERATOR_ACTIONS, OperatorAction).where(
                OPERATOR_ACTIONS.c.saga == saga, OPERATOR_ACTIONS.c.id == id_
            )
            return SagaDetails(
                rows[0],
                [SentStep(*row) for row in await connection.execute(steps.order_by(STEPS.c.number))],
                {row.name: row.due_at for row in await connection.execute(timers.order_by(TIMERS.c.due_at))},
                [
                    OperatorAction(*row)
                    for row in await connection.execute(wishes.order_by(OPERATOR_ACTIONS.c.number))
                ],
            )

    async def page(
        self,
        saga: str,
        *,
        status: str = "",
        open_only: bool = False,
        after: ListPosition | None = None,
        limit: int,
    ) -> list[SagaRow]:
        """Return sagas of a kind: overdue ones first, those that are due at no time last.

        Args:
            saga: the kind.
            standing: only those that stand there; empty for all.
            open_only: only those that have not ended.
            after: the place of the one that the page follows on; None for the first page.
            limit: how many at the most.
        """
        wanted: list[ColumnElement[bool]] = [SAGAS.c.saga == saga]
        if status:
            wanted.append(SAGAS.c.status == status)
        if open_only:
            wanted.append(SAGAS.c.ended.is_(False))
        order = (DUE, SAGAS.c.began_at, SAGAS.c.id)
        if after:
            wanted.append(tuple_(*order) > after)
        async with self._engine.connect() as connection:
            return await self._rows(connection, _sagas().where(*wanted).order_by(*order).limit(limit))

    async def kinds_of(self, id_: str) -> list[str]:
        """Return the kinds of sagas that there are of this id."""
        async with self._engine.connect() as connection:
            kinds = await connection.scalars(
                select(SAGAS.c.saga).where(SAGAS.c.id == id_).order_by(SAGAS.c.saga)
            )
            return list(kinds)

    async def versions(self, saga: str, ids: Collection[str]) -> dict[str, int]:
        """Return how far sagas have heard their streams; nothing for those that have not begun."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(
                select(SAGAS.c.id, SAGAS.c.version).where(SAGAS.c.saga == saga, SAGAS.c.id.in_(ids))
            )
            return {row.id: row.version for row in rows}

    async def counts(self) -> dict[str, tuple[int, int, int]]:
        """Return how many sagas of each kind are open, overdue, and in need of an operator."""
        overdue = func.count().filter(SAGAS.c.due_at < func.now())
        troubled = func.count().filter(SAGAS.c.blocked_reason != "")
        async with self._engine.connect() as connection:
            rows = await connection.execute(
                select(SAGAS.c.saga, func.count(), overdue, troubled)
                .where(SAGAS.c.ended.is_(False))
                .group_by(SAGAS.c.saga)
            )
            return {saga: (open_, late, stopped) for saga, open_, late, stopped in rows}

    async def _rows(self, connection: AsyncConnection, found: Select[Any]) -> list[SagaRow]:
        rows = [row._asdict() for row in await connection.execute(found)]
        waiting = await self._unanswered(connection, rows)
        for row in rows:
            if (step := waiting.get((row["saga"], row["id"]))) and not row["blocked_reason"]:
                row["waiting_for"] = f"an answer to {step}"
        return [SagaRow(**row) for row in rows]

    async def _unanswered(
        self, connection: AsyncConnection, rows: Iterable[Mapping[str, Any]]
    ) -> dict[tuple[str, str], str]:
        """Return, of each saga that has sent something without an answer yet, the first of it."""
        keys = [(row["saga"], row["id"]) for row in rows if not row["ended"]]
        steps = (
            select(STEPS.c.saga, STEPS.c.id, STEPS.c.step)
            .where(STEPS.c.outcome.is_(None), tuple_(STEPS.c.saga, STEPS.c.id).in_(keys))
            .order_by(STEPS.c.number.desc())
        )
        found = await connection.execute(steps) if keys else ()
        return {(saga, id_): step for saga, id_, step in found}


def _sagas() -> Select[Any]:
    return _of(SAGAS, SagaRow)


def _of(table: Any, kind: Any) -> Select[Any]:
    """Return what selects the columns that a class has fields for."""
    return select(*(table.c[name] for name in kind.__dataclass_fields__))
