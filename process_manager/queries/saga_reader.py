"""Read-only queries over saga instances, for operators and for the QueryService."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, Table, exists, func, select, text, tuple_, union_all
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from process_manager.deadlines.reader import find_deadline, find_sagas
from process_manager.postgres.rows import find_error
from process_manager.postgres.schema import (
    BLOCKED,
    MANAGERS,
    OPEN,
    OPERATOR_ACTIONS,
    SAGAS,
    STEPS,
    TARGET,
    TIMERS,
)
from process_manager.queries.saga_conditions import ORDER, OVERDUE, follow, match_progress
from process_manager.queries.saga_records import (
    NEVER,
    ListPosition,
    OperatorAction,
    SagaCounts,
    SagaDetails,
    SagaFilter,
    SagaRow,
    SentStep,
    SilentTarget,
)
from process_manager.saga import Saga

SILENT_TARGETS = text("""
SELECT t.target, min(CAST(t.value ->> 'since' AS timestamptz)), min(t.value ->> 'error'), (
  SELECT count(*) FROM saga_steps s WHERE s.outcome IS NULL AND split_part(s.method, '/', 2) = t.target
)
FROM saga_managers m CROSS JOIN LATERAL jsonb_each(m.silent_targets) AS t (target, value)
WHERE m.until > now()
GROUP BY t.target ORDER BY 2, 1
""")

TIMER_TIME = (
    TIMERS.c.due_at + func.coalesce(func.greatest(func.now() - TIMERS.c.stopped_at, timedelta()), timedelta())
).label("due_at")
"""The time of a timer; one that is stopped fires this late at least."""


class SagaReader:
    """Reads the process manager's tables.

    Args:
        engine: of the process manager's database.
        sagas: the definitions, by which rows that cannot be read are found; None to read rows as they are.
    """

    def __init__(self, engine: AsyncEngine, sagas: Iterable[Saga[Any]] | None = None) -> None:
        self._engine = engine.execution_options(isolation_level="REPEATABLE READ")
        self._sagas = None if sagas is None else {saga.name: saga for saga in sagas}

    async def find(self, saga: str, id_: str, *, most: int | None = None) -> SagaDetails | None:
        """Return an instance, also one that begins at a deadline; None if there is none of this id.

        Args:
            saga: the saga's name.
            id_: the instance's id.
            most: the maximum number of its steps and of its operators' actions, the latest ones, and of its
                timers, the next ones; None for all.
        """
        async with self._engine.connect() as connection:
            query = select_sagas().where(SAGAS.c.saga == saga, SAGAS.c.id == id_)
            sagas = await self.read_rows(connection, query)
            if not sagas:
                definition = (self._sagas or {}).get(saga)
                return await find_deadline(connection, definition, id_) if definition else None
            steps = _select_fields(STEPS, SentStep).where(STEPS.c.saga == saga, STEPS.c.id == id_)
            timers = select(TIMERS.c.name, TIMER_TIME).where(TIMERS.c.saga == saga, TIMERS.c.id == id_)
            actions = _select_fields(OPERATOR_ACTIONS, OperatorAction).where(
                OPERATOR_ACTIONS.c.saga == saga, OPERATOR_ACTIONS.c.id == id_
            )
            latest_steps = await connection.execute(steps.order_by(STEPS.c.number.desc()).limit(most))
            next_timers = await connection.execute(timers.order_by(TIMER_TIME).limit(most))
            latest_actions = await connection.execute(
                actions.order_by(OPERATOR_ACTIONS.c.number.desc()).limit(most)
            )
            return SagaDetails(
                sagas[0],
                [SentStep(*row) for row in latest_steps][::-1],
                {row.name: row.due_at for row in next_timers},
                [OperatorAction(*row) for row in latest_actions][::-1],
            )

    async def count_steps(self, saga: str, id_: str) -> int:
        query = select(func.count()).where(STEPS.c.saga == saga, STEPS.c.id == id_)
        async with self._engine.connect() as connection:
            return await connection.scalar(query) or 0

    async def read_page(
        self,
        sagas: Sequence[str],
        filter_: SagaFilter,
        *,
        after: ListPosition | None = None,
        limit: int,
    ) -> list[SagaRow]:
        """Return instances of sagas, the longest overdue first and those without a due time last.

        Args:
            sagas: the names of the sagas.
            filter_: selects instances.
            after: the position of the last entry of the previous page; None for the first page.
            limit: the maximum number of instances.
        """
        if not sagas:
            return []
        # Each saga's rows come in order from its index, so no query sorts more than a page of each.
        pages = [_select_page(saga, filter_, after, limit).subquery() for saga in sagas]
        rows = union_all(*(select(page) for page in pages)).subquery()
        due_at, saga = func.coalesce(rows.c.due_at, NEVER), rows.c.saga.collate("C")  # sorts as Python does
        query = select(rows).order_by(due_at, rows.c.began_at, rows.c.id, saga).limit(limit)
        async with self._engine.connect() as connection:
            return await self.read_rows(connection, query)

    async def find_names(self, id_: str) -> list[str]:
        """Return the names of the sagas that have an instance or a deadline of this id."""
        async with self._engine.connect() as connection:
            names = await connection.scalars(select(SAGAS.c.saga).where(SAGAS.c.id == id_))
            return sorted({*names, *await find_sagas(connection, id_)})

    async def count_open(self) -> dict[str, SagaCounts]:
        """Return the numbers of the instances that have not ended or cannot be read, by saga."""
        denied_step = exists().where(
            STEPS.c.saga == SAGAS.c.saga, STEPS.c.id == SAGAS.c.id, STEPS.c.outcome.is_(None), STEPS.c.denied
        )
        query = (
            select(
                SAGAS.c.saga,
                func.count().filter(SAGAS.c.ended.is_(False)),
                func.count().filter(OVERDUE),
                func.count().filter(BLOCKED),
                func.count().filter(denied_step),
                func.count().filter(SAGAS.c.unreadable),
            )
            .where(OPEN)
            .group_by(SAGAS.c.saga)
        )
        async with self._engine.connect() as connection:
            return {saga: SagaCounts(*counts) for saga, *counts in await connection.execute(query)}

    async def read_silent_targets(self) -> list[SilentTarget]:
        """Return the services that do not answer steps, the longest silent first."""
        async with self._engine.connect() as connection:
            return [SilentTarget(*row) for row in await connection.execute(SILENT_TARGETS)]

    async def read_rows(self, connection: AsyncConnection, query: Select[Any]) -> list[SagaRow]:
        """Return the rows of a query that selects the columns of `select_sagas`, with what they wait for."""
        rows = [row._asdict() for row in await connection.execute(query)]
        pending_steps = await self._read_pending_steps(connection, rows)
        for row in rows:
            if (step := pending_steps.get((row["saga"], row["id"]))) and not row["blocked_reason"]:
                row["waiting_for"] = f"the reply to {step}"
        return [SagaRow(**self._check_readable(row)) for row in rows]

    def _check_readable(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the columns of a row; of one that cannot be read, those that can be used and the reason."""
        if self._sagas is None:
            return row
        error = find_error(self._sagas.get(row["saga"]), row["state"], row["other_streams"])
        if not error:
            return {**row, "unreadable": False}
        return {**row, "unreadable": True, "blocked_reason": error, "state": {}, "other_streams": {}}

    async def _read_pending_steps(
        self, connection: AsyncConnection, rows: Iterable[Mapping[str, Any]]
    ) -> dict[tuple[str, str], str]:
        """Return the first unanswered step of each saga that has one, and why it is not answered."""
        keys = [(row["saga"], row["id"]) for row in rows if not row["ended"]]
        silent = exists().where(MANAGERS.c.until > func.now(), MANAGERS.c.silent_targets.has_key(TARGET))
        query = (
            select(STEPS.c.saga, STEPS.c.id, STEPS.c.step, STEPS.c.denied, TARGET, silent)
            .where(STEPS.c.outcome.is_(None), tuple_(STEPS.c.saga, STEPS.c.id).in_(keys))
            .order_by(STEPS.c.number.desc())  # the dict below keeps the last of a saga's steps
        )
        steps = await connection.execute(query) if keys else ()
        return {
            (saga, id_): step + (" (denied)" if denied else f" ({target} does not answer)" if silent else "")
            for saga, id_, step, denied, target, silent in steps
        }


def _select_page(saga: str, filter_: SagaFilter, after: ListPosition | None, limit: int) -> Select[Any]:
    conditions = match_progress(
        open_only=filter_.open_only, blocked_only=filter_.blocked_only, overdue_only=filter_.overdue_only
    )
    if filter_.status:
        conditions.append(SAGAS.c.status == filter_.status)
    if after:
        conditions.append(follow(after, saga))
    return select_sagas().where(SAGAS.c.saga == saga, *conditions).order_by(*ORDER).limit(limit)


def select_sagas() -> Select[Any]:
    """Select the columns of a `SagaRow`."""
    return _select_fields(SAGAS, SagaRow)


def _select_fields(table: Table, row_type: Any) -> Select[Any]:
    """Select the columns that correspond to the fields of a dataclass, in their order."""
    return select(*(table.c[name] for name in row_type.__dataclass_fields__))
