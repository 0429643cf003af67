"""Conditions on the rows of `sagas` that the QueryService and the operations server share."""

from typing import Any

from sqlalchemy import ColumnElement, func, tuple_

from process_manager.postgres.schema import BLOCKED, DUE, OPEN, SAGAS
from process_manager.queries.saga_records import ListPosition

ORDER: tuple[ColumnElement[Any], ...] = (DUE, SAGAS.c.began_at, SAGAS.c.id)
"""The order of the lists of one saga, which is that of an index."""
OVERDUE = SAGAS.c.due_at < func.now()


def match_progress(*, open_only: bool, blocked_only: bool, overdue_only: bool) -> list[ColumnElement[bool]]:
    """Return the conditions of these fields of a filter."""
    choices = ((open_only, OPEN), (blocked_only, BLOCKED), (overdue_only, OVERDUE))
    return [condition for chosen, condition in choices if chosen]


def follow(position: ListPosition, saga: str) -> ColumnElement[bool]:
    """Return the condition that rows of a saga come after a position, which may be of another saga."""
    *last, last_saga = position
    columns, values = tuple_(*ORDER), tuple(last)
    # Of equal positions, the sagas whose names come later follow.
    return columns >= values if saga > last_saga else columns > values
