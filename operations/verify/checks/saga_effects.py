"""The instances of a saga that rest, page by page, for a check that compares their effects.

An instance rests if no step of it is unanswered and no operator is needed. One that changes during the check
is checked again.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from operations.verify.checks import stored_streams
from operations.verify.model import Aggregate, Problem
from operations.verify.recheck import confirm
from operations.verify.report import Report
from operations.verify.sources import PAGE_SIZE, PostgresReader

_RESTING = """
SELECT id, status FROM sagas g
WHERE saga = :saga AND blocked_reason = '' AND status = ANY(CAST(:states AS text[]))
AND archived_steps IS NULL
AND NOT EXISTS (SELECT FROM saga_steps s WHERE s.saga = g.saga AND s.id = g.id AND s.outcome IS NULL)
"""
NEXT_RESTING = f"{_RESTING} AND id > :after ORDER BY id LIMIT :limit"
STILL_RESTING = f"{_RESTING} AND id = ANY(CAST(:ids AS text[])) ORDER BY id"
ACCEPTED_STEPS = """
SELECT id, method, request FROM saga_steps
WHERE saga = :saga AND id = ANY(CAST(:ids AS text[])) AND outcome = 'OK'
"""

CheckPage = Callable[[PostgresReader, Mapping[str, Aggregate], Sequence[Any]], Awaitable[list[Problem]]]
"""Checks instances, rows of id and status; a problem's subject ends with the id of its instance."""


@dataclass(frozen=True)
class EffectsCheck:
    """A check of a saga's effects.

    Args:
        saga: the saga's name.
        states: the states in which an instance rests.
        needed_streams: the types of the streams with its effects.
        check_page: compares them.
    """

    saga: str
    states: Collection[str]
    needed_streams: frozenset[str]
    check_page: CheckPage

    async def run(
        self,
        postgres: PostgresReader,
        aggregates: Mapping[str, Aggregate],
        report: Report,
        deadline: float,
    ) -> None:
        """Check all instances that rest.

        Args:
            postgres: the rows of the sagas, and the events.
            aggregates: the folds, by stream type.
            report: receives the findings.
            deadline: of `time.monotonic`, for instances that change during the check.
        """
        if missing := self.needed_streams - aggregates.keys():
            report.notes.append(
                f"effects of {self.saga} not compared: no fold of {', '.join(sorted(missing))}"
            )
            return
        after = ""
        while page := await self._fetch(postgres, NEXT_RESTING, after=after, limit=PAGE_SIZE):
            after = page[-1].id
            problems = await self.check_page(postgres, aggregates, page)
            if ids := {problem.subject.rpartition(" ")[2] for problem in problems}:
                report.add_all(await confirm(partial(self._recheck, postgres, aggregates, ids), deadline))

    async def _recheck(
        self, postgres: PostgresReader, aggregates: Mapping[str, Aggregate], ids: Collection[str]
    ) -> Sequence[Problem]:
        """Check those of these instances that rest now."""
        rows = await self._fetch(postgres, STILL_RESTING, ids=list(ids))
        return await self.check_page(postgres, aggregates, rows)

    async def _fetch(self, postgres: PostgresReader, statement: str, **values: Any) -> Sequence[Any]:
        return await postgres.fetch(statement, saga=self.saga, states=list(self.states), **values)


async def read_accepted_steps(
    postgres: PostgresReader, saga: str, instances: Sequence[Any]
) -> Mapping[str, Sequence[Any]]:
    """Return the rows of these instances' accepted steps, by instance."""
    steps: dict[str, list[Any]] = {row.id: [] for row in instances}
    for row in await postgres.fetch(ACCEPTED_STEPS, saga=saga, ids=[row.id for row in instances]):
        steps[row.id].append(row)
    return steps


async def fold_streams(
    postgres: PostgresReader, aggregates: Mapping[str, Aggregate], names: Sequence[str]
) -> dict[str, Any]:
    """Return the views of these streams, by name; streams that cannot be folded are omitted."""
    views: dict[str, Any] = {}
    for name, stream in (await postgres.read_streams(names)).items():
        aggregate = aggregates[stream.row.type] if stream.row else None
        if aggregate is None:
            continue
        events, problems = stored_streams.parse_events(stream, aggregate.events)
        if events and not problems:
            views[name] = aggregate.projections[0].fold(events)
    return views
