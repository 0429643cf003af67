"""Finds the instances whose reactions to events PostgreSQL refuses: they alone must not have these events."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from process_manager.group_store import GroupStore
from process_manager.inputs import EventBatch
from process_manager.saga import Saga
from process_manager.unit_of_work import UnitOfWork


async def find_refused(
    store: GroupStore, sagas: Mapping[str, Saga[Any]], batch: EventBatch, ids: Sequence[str]
) -> list[str]:
    """Return those of these instances whose reactions are refused, by dividing them; nothing is written."""
    others = batch.assigned.instances.keys() - set(ids)
    trial = replace(batch, refused=dict.fromkeys(others, "tried without it"))
    unit = UnitOfWork(sagas, await store.read(sagas, [trial], []))
    trial.apply(unit)
    if not ids or await store.can_write([unit]):
        return []
    if len(ids) == 1:
        return list(ids)
    middle = len(ids) // 2
    left = await find_refused(store, sagas, batch, ids[:middle])
    return [*left, *await find_refused(store, sagas, batch, ids[middle:])]
