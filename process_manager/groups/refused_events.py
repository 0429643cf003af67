"""Finds the instances whose reactions to events PostgreSQL refuses: they alone must not have these events.

A reaction is refused only if PostgreSQL takes the events without any reaction, and answers twice with the
same error to this reaction alone: one error may have another cause than the data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from process_manager.groups.inputs import EventBatch, ParkedSlice
from process_manager.groups.unit_of_work import UnitOfWork
from process_manager.postgres.group_store import GroupStore
from process_manager.postgres.stored_values import to_text
from process_manager.saga import Saga


async def find_refused(
    store: GroupStore, sagas: Mapping[str, Saga[Any]], events: EventBatch | ParkedSlice
) -> dict[str, str]:
    """Return the errors of the instances whose reactions are refused, by their ids; nothing is written.

    Raises:
        Exception: it is unknown, for instance because a table is locked.
    """
    search = _Search(store, sagas, events)
    ids = list(events.assigned.instances)
    if not ids or await search.find_error([]) is not None:
        return {}
    return await search.divide(ids)


class _Search:
    def __init__(
        self, store: GroupStore, sagas: Mapping[str, Saga[Any]], events: EventBatch | ParkedSlice
    ) -> None:
        self._store, self._sagas, self._events = store, sagas, events

    async def divide(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the errors of those of these instances whose reactions are refused."""
        error = await self.find_error(ids)
        if error is None:
            return {}
        if len(ids) > 1:
            middle = len(ids) // 2
            return {**await self.divide(ids[:middle]), **await self.divide(ids[middle:])}
        again = await self.find_error(ids)
        is_same = again is not None and _get_code(again) == _get_code(error)
        return {ids[0]: to_text(_omit_detail(error))} if is_same else {}

    async def find_error(self, ids: Sequence[str]) -> Exception | None:
        """Return PostgreSQL's error if of all reactions only those of these instances are tried."""
        others = self._events.assigned.instances.keys() - set(ids)
        trial = replace(self._events, refused=dict.fromkeys(others, "tried without it"))
        # Rows that it takes from the kept ones do not come back, since nothing is written: later trials and
        # the next group read them.
        unit = UnitOfWork(self._sagas, await self._store.read(self._sagas, [trial], []))
        trial.apply(unit)
        return await self._store.find_error(unit)


def _omit_detail(error: Exception) -> str:
    """Return an error without PostgreSQL's DETAIL, which holds the row, and so perhaps personal data."""
    return getattr(error, "message", None) or str(error)


def _get_code(error: Exception) -> object:
    return getattr(error, "sqlstate", None) or type(error)
