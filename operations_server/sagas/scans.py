"""Reads instances in the order of their due times, in slices of a bounded number of rows."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select, true, tuple_, union_all
from sqlalchemy.ext.asyncio import AsyncEngine

from operations_server.sagas.terms import InstanceKey
from process_manager.postgres.schema import DUE, SAGAS, STEPS
from process_manager.queries.saga_conditions import ORDER, follow, match_progress
from process_manager.queries.saga_reader import SagaReader, select_sagas
from process_manager.queries.saga_records import ListPosition, SagaRow

SLICE = 1_000
"""Rows of one saga that one statement compares with the filter."""


@dataclass(frozen=True, slots=True)
class SagaFilter:
    """The fields by which instances are selected; a field without a value selects all."""

    state: str = ""
    open_only: bool = False
    blocked_only: bool = False
    overdue_only: bool = False
    error: str = ""
    """In the reason why an instance is blocked, or in the error of a step that waits for its answer."""
    began_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """The selected instances of a slice, in order."""

    keys: Sequence[InstanceKey]
    scanned_to: ListPosition | None
    """The position of the last row that was compared; None if none follows."""
    positions: Sequence[ListPosition]
    """Of the selected instances."""


class SagaScanner:
    """Reads the rows of sagas.

    Args:
        database: of the process manager.
        reader: reads whole rows.
    """

    def __init__(self, database: AsyncEngine, reader: SagaReader) -> None:
        self._database = database
        self._reader = reader

    async def read_slice(
        self, sagas: Sequence[str], filter_: SagaFilter, after: ListPosition | None
    ) -> Slice:
        """Compare the next rows of sagas with a filter."""
        if not sagas:
            return Slice((), None, ())
        pages = [_select_slice(saga, filter_, after).subquery() for saga in sagas]
        rows = union_all(*(select(page) for page in pages)).subquery()
        order = (rows.c.due, rows.c.began_at, rows.c.id, rows.c.saga.collate("C"))  # sorts as Python does
        query = select(rows).order_by(*order).limit(SLICE)
        async with self._database.connect() as connection:
            found = (await connection.execute(query)).all()
        positions = [(row.due, row.began_at, row.id, row.saga) for row in found]
        selected = [at for at, row in zip(positions, found, strict=True) if row.selected]
        keys = [(saga, id_) for _, _, id_, saga in selected]
        return Slice(keys, positions[-1] if len(found) == SLICE else None, selected)

    async def read_rows(
        self, keys: Collection[InstanceKey], filter_: SagaFilter | None = None
    ) -> dict[InstanceKey, SagaRow]:
        """Return whole rows, those that a filter selects if there is one."""
        if not keys:
            return {}
        query = select_sagas().where(tuple_(SAGAS.c.saga, SAGAS.c.id).in_(list(keys)))
        if filter_ is not None:
            query = query.where(_match(filter_), _bound(filter_))
        async with self._database.connect() as connection:
            rows = await self._reader.read_rows(connection, query)
        return {(row.saga, row.id): row for row in rows}


def _select_slice(saga: str, filter_: SagaFilter, after: ListPosition | None) -> Select[Any]:
    """Select the next rows in the order of an index, with whether the filter selects each."""
    conditions = [SAGAS.c.saga == saga, _bound(filter_), *([follow(after, saga)] if after else [])]
    columns = (DUE.label("due"), SAGAS.c.began_at, SAGAS.c.id, SAGAS.c.saga)
    selected = _match(filter_).label("selected")
    return select(*columns, selected).where(*conditions).order_by(*ORDER).limit(SLICE)


def _bound(filter_: SagaFilter) -> ColumnElement[bool]:
    """Return the conditions that an index fulfils: rows that they exclude are not read."""
    conditions: list[ColumnElement[bool]] = [true()]
    if filter_.state:
        conditions.append(SAGAS.c.status == filter_.state)
    if filter_.overdue_only or filter_.blocked_only:
        conditions.append(func.now() >= DUE)  # a blocked instance is due at once
    return and_(*conditions)


def _match(filter_: SagaFilter) -> ColumnElement[bool]:
    conditions = match_progress(
        open_only=filter_.open_only, blocked_only=filter_.blocked_only, overdue_only=filter_.overdue_only
    )
    if filter_.began_before is not None:
        conditions.append(SAGAS.c.began_at < filter_.began_before)
    if filter_.error:
        conditions.append(or_(_contains(SAGAS.c.blocked_reason, filter_.error), _has_error(filter_.error)))
    return and_(true(), *conditions)


def _has_error(text: str) -> ColumnElement[bool]:
    """Return whether a step of a row waits for its answer after an error with this text."""
    waits = and_(STEPS.c.saga == SAGAS.c.saga, STEPS.c.id == SAGAS.c.id, STEPS.c.outcome.is_(None))
    return exists().where(waits, SAGAS.c.ended.is_(False), _contains(STEPS.c.error, text))


def _contains(column: Any, text: str) -> ColumnElement[bool]:
    return func.strpos(func.lower(func.coalesce(column, "")), func.lower(text)) > 0
