"""The deadlines that stand for instances: one for each stream that has its first event alone, at its time."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from contracts import streams
from operations.verify.checks.stored_streams import parse_events
from operations.verify.model import Aggregate, Problem, SagaSpec
from operations.verify.recheck import confirm
from operations.verify.report import Report
from operations.verify.sources import PAGE_SIZE, PostgresReader

DIFFERENT = """
SELECT coalesce(s.id, :stream_type || '.' || d.id) AS stream, s.version, d.due_at
FROM (
  SELECT * FROM streams s WHERE type = :stream_type AND version = 1
  AND NOT EXISTS (
    SELECT FROM sagas g WHERE g.saga = :saga AND g.id = substr(s.id, length(:stream_type) + 2)
  )
) s
FULL JOIN (SELECT * FROM saga_deadlines WHERE saga = :saga) d
ON d.id = substr(s.id, length(:stream_type) + 2)
WHERE s.id IS NULL OR d.id IS NULL
ORDER BY 1 LIMIT 1000
"""
"""Streams with their first event alone and no deadline, and deadlines without such a stream."""

PAGE = "SELECT id, due_at FROM saga_deadlines WHERE saga = :saga AND id > :after ORDER BY id LIMIT :limit"
STILL = "SELECT id, due_at FROM saga_deadlines WHERE saga = :saga AND id = ANY(CAST(:ids AS text[]))"


LATE = """
SELECT id, due_at FROM saga_deadlines
WHERE saga = :saga AND due_at < now() - make_interval(secs => CAST(:seconds AS float)) ORDER BY id LIMIT 1000
"""
LATE_SECONDS = 900.0
"""After a deadline, until its instance must have begun. A process manager lets it wait for steps and events,
for some minutes at most."""


async def check(
    postgres: PostgresReader,
    spec: SagaSpec,
    aggregates: Mapping[str, Aggregate],
    report: Report,
    deadline: float,
) -> None:
    """Check all deadlines of a saga.

    Args:
        postgres: the deadlines, and the events.
        spec: the saga.
        aggregates: the aggregates by stream type.
        report: receives the findings.
        deadline: of `time.monotonic`, for feeds that are behind.
    """
    report.add_all(await confirm(partial(_find_different, postgres, spec), deadline))
    report.add_all(await confirm(partial(_find_late, postgres, spec), deadline))
    if spec.subscribes_to not in aggregates:
        report.notes.append(f"deadlines of {spec.name} not compared: its context is not chosen")
        return
    after = ""
    while page := await postgres.fetch(PAGE, saga=spec.name, after=after, limit=PAGE_SIZE):
        after = page[-1].id
        ids = [row.id for row in page]
        compare = partial(_compare_page, postgres, spec, aggregates[spec.subscribes_to], ids)
        report.add_all(await confirm(compare, deadline))


async def _find_different(postgres: PostgresReader, spec: SagaSpec) -> Sequence[Problem]:
    rows = await postgres.fetch(DIFFERENT, saga=spec.name, stream_type=spec.subscribes_to)
    return [
        _describe(
            spec,
            streams.aggregate_id(row.stream),
            "its deadline is watched, though it has ended"
            if row.due_at is not None
            else "its deadline is not watched",
            transient=True,
        )
        for row in rows
    ]


async def _find_late(postgres: PostgresReader, spec: SagaSpec) -> Sequence[Problem]:
    rows = await postgres.fetch(LATE, saga=spec.name, seconds=LATE_SECONDS)
    return [
        _describe(spec, row.id, f"nothing has begun at its deadline {row.due_at.isoformat()}", transient=True)
        for row in rows
    ]


async def _compare_page(
    postgres: PostgresReader, spec: SagaSpec, aggregate: Aggregate, ids: Sequence[str]
) -> Sequence[Problem]:
    """Compare deadlines with the first events of their streams."""
    rows = await postgres.fetch(STILL, saga=spec.name, ids=list(ids))
    names = {row.id: streams.stream_name(spec.subscribes_to, row.id) for row in rows}
    stored = await postgres.read_streams(list(names.values()))
    problems = []
    for row in rows:
        if names[row.id] not in stored:
            continue  # the other comparison reports it
        events, _ = parse_events(stored[names[row.id]], aggregate.events)
        expected: Any = spec.deadline(events[0].message) if spec.deadline and events else None
        if expected is not None and expected != row.due_at:
            text = f"its deadline is watched for {row.due_at.isoformat()}, not {expected.isoformat()}"
            problems.append(_describe(spec, row.id, text))
    return problems


def _describe(spec: SagaSpec, id_: str, text: str, *, transient: bool = False) -> Problem:
    return Problem("sagas", f"saga {spec.name} {id_}", text, transient=transient)
