"""Read-only queries over deadlines, and what they look like as instances that have yet to begin."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from process_manager.postgres.schema import DEADLINES
from process_manager.queries.saga_records import SagaDetails, SagaRow
from process_manager.saga import Saga


@dataclass(frozen=True, slots=True)
class WatchedDeadlines:
    """The deadlines of one saga."""

    count: int
    next_at: datetime


async def find_deadline(connection: AsyncConnection, saga: Saga[Any], id_: str) -> SagaDetails | None:
    """Return the instance that begins at a deadline, as it will begin; None if there is no deadline."""
    if saga.deadline is None:
        return None
    columns = DEADLINES.c
    query = select(columns.due_at, columns.set_at).where(columns.saga == saga.name, columns.id == id_)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    state = saga.deadline.begin(id_, row.due_at)
    status = saga.describe_status(state)
    instance = SagaRow(
        saga=saga.name,
        id=id_,
        version=1,
        other_streams={},
        failed_input="",
        state=msgspec.to_builtins(state),
        status=status.state,
        ended=False,
        waiting_for=status.waiting_for,
        blocked_reason="",
        began_at=row.set_at,
        status_since=row.set_at,
        due_at=None,
    )
    return SagaDetails(instance, (), {saga.deadline.timer: row.due_at}, ())


async def find_sagas(connection: AsyncConnection, id_: str) -> list[str]:
    """Return the names of the sagas with a deadline of this id."""
    return list(await connection.scalars(select(DEADLINES.c.saga).where(DEADLINES.c.id == id_)))


async def count_deadlines(engine: AsyncEngine, sagas: Collection[str]) -> dict[str, WatchedDeadlines]:
    """Return the numbers of deadlines and the next ones, by saga."""
    columns = DEADLINES.c
    query = select(columns.saga, func.count(), func.min(columns.due_at)).where(columns.saga.in_(sagas))
    async with engine.connect() as connection:
        rows = await connection.execute(query.group_by(columns.saga))
        return {saga: WatchedDeadlines(*values) for saga, *values in rows}


async def count_all_deadlines(engine: AsyncEngine) -> int:
    """Return the number of the deadlines of all sagas."""
    async with engine.connect() as connection:
        return await connection.scalar(select(func.count()).select_from(DEADLINES)) or 0
