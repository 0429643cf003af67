"""Inputs in the queue of a group commit, and how a unit of work applies them. Pure."""

import asyncio
from collections import Counter
from collections.abc import Hashable, Sequence, Set
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from process_manager.groups.inputs import QueuedInput
from process_manager.groups.unit_of_work import UnitOfWork
from process_manager.postgres import changes
from process_manager.postgres.due_work import CheckpointConflict, Feed
from process_manager.postgres.write_statement import PARTS


@dataclass
class Queued:
    """An input that waits for its result."""

    input: QueuedInput[Any]
    result: asyncio.Future[Any]
    queued_at: float = field(default_factory=monotonic)
    lost_races: int = 0
    needs_checkpoint: bool = False
    """Whether another manager may have advanced its feed."""

    def fail(self, error: BaseException) -> None:
        if not self.result.done():
            self.result.set_exception(error)

    def complete(self, result: object) -> None:
        if not self.result.done():
            self.result.set_result(result)


def note_lost_race(queued: Queued) -> Queued:
    queued.needs_checkpoint = True
    queued.lost_races += 1
    return queued


@dataclass
class AppliedUnit:
    """A unit of work, and the results of its inputs."""

    unit: UnitOfWork
    results: list[tuple[Queued, Any]]


def apply_inputs(unit: UnitOfWork, members: Sequence[Queued]) -> AppliedUnit:
    """Apply inputs; those that fail change nothing."""
    results: list[tuple[Queued, Any]] = []
    for each in members:
        try:
            results.append((each, each.input.apply(unit)))
        except Exception as error:  # of the saga's code, or another manager was faster
            each.fail(error)
            if not each.input.is_atomic and not isinstance(error, CheckpointConflict):
                # The instances may have changed: without this input, everything once more.
                rest = [other for other in members if other is not each and not other.result.done()]
                return apply_inputs(UnitOfWork(unit.sagas, unit.rows), rest)
    return AppliedUnit(unit, results)


def divide_by_tables(units: Sequence[AppliedUnit]) -> list[list[AppliedUnit]]:
    """Return the units by the tables that their changes use, those with the fewest tables first."""
    divided: dict[Set[str], list[AppliedUnit]] = {}
    for each in units:
        parts = changes.list_rows([each.unit])
        tables = frozenset(table for part in parts if parts[part] for table in PARTS[part].tables)
        divided.setdefault(tables, []).append(each)
    return [divided[tables] for tables in sorted(divided, key=len)]


def list_contended_feeds(group: Sequence[Queued]) -> set[Feed]:
    """Return the feeds whose checkpoints have to be read: they may have moved, or have several batches."""
    counts = Counter(each.input.feed for each in group if each.input.feed is not None)
    repeated = {feed for feed, number in counts.items() if number > 1}
    return repeated | {each.input.feed for each in group if each.needs_checkpoint and each.input.feed}


def list_keys(input_: QueuedInput[Any]) -> list[Hashable]:
    return [input_.feed] if input_.feed is not None else list(input_.instances)
