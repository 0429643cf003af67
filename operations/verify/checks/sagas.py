"""The process manager's rows against the events: every stream consumed to its end, every step on record."""

from collections.abc import Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any

from contracts import streams
from operations.verify.model import Aggregate, Problem, SagaSpec
from operations.verify.recheck import confirm
from operations.verify.report import Report
from operations.verify.sources import PostgresReader

NEVER_RAN = "no process manager has run on this database: sagas not compared"

CHECKPOINT_COUNT = "SELECT count(*) FROM saga_checkpoints"

COUNTS = "SELECT (SELECT count(*) FROM sagas), (SELECT count(*) FROM saga_steps)"

NOT_AT_END = """
SELECT s.id, s.version, coalesce(g.version, 0) AS consumed, coalesce(g.failed_input, '') AS failed_input
FROM streams s LEFT JOIN sagas g ON g.saga = :saga AND g.id = substr(s.id, length(:subscribes_to) + 2)
WHERE s.type = :subscribes_to AND g.version IS DISTINCT FROM s.version ORDER BY s.id LIMIT 1000
"""

WITHOUT_STREAM = """
SELECT id FROM sagas g WHERE saga = :saga
AND NOT EXISTS (SELECT FROM streams WHERE id = :subscribes_to || '.' || g.id) ORDER BY id LIMIT 1000
"""

CONTRADICTED_STEPS = """
SELECT s.saga, s.id, s.step, s.attempt, s.outcome, r.outcome AS recorded
FROM saga_steps s LEFT JOIN requests r ON r.request_id = s.request_id
WHERE s.method LIKE '%.CommandService/%' AND s.outcome IS NOT NULL
AND CASE WHEN s.outcome = 'OK' THEN r.outcome IS DISTINCT FROM 'ACCEPTED'
         ELSE coalesce(r.outcome, s.outcome) <> s.outcome END
ORDER BY s.saga, s.id, s.number LIMIT 1000
"""
"""Steps whose outcome is not the one in `requests`. The write model does not record invalid requests."""


async def check(
    postgres: PostgresReader,
    specs: Sequence[SagaSpec],
    aggregates: Mapping[str, Aggregate],
    report: Report,
    within: float,
) -> None:
    """Check the sagas.

    Args:
        postgres: the rows of the sagas, and the events.
        specs: the sagas.
        aggregates: the folds, by stream type.
        report: receives the findings.
        within: seconds for sagas that are behind to catch up.
    """
    ((checkpoints,),) = await postgres.fetch(CHECKPOINT_COUNT)
    if not checkpoints:
        report.counts.update(sagas=0, steps=0)
        report.notes.append(NEVER_RAN)
        return
    deadline = monotonic() + within
    for spec in specs:
        saga, subscribes_to = spec.name, spec.subscribes_to
        report.add_all(await confirm(partial(_find_behind, postgres, saga, subscribes_to), deadline))
        for (id_,) in await postgres.fetch(WITHOUT_STREAM, saga=saga, subscribes_to=subscribes_to):
            report.add(Problem("sagas", f"saga {saga} {id_}", f"no stream {subscribes_to}.{id_}"))
        if spec.check is not None:
            await spec.check(postgres, aggregates, report, deadline)
    report.add_all(await confirm(partial(_find_contradicted_steps, postgres), deadline))
    ((sagas, steps),) = await postgres.fetch(COUNTS)
    report.counts.update(sagas=sagas, steps=steps)


async def _find_behind(postgres: PostgresReader, saga: str, subscribes_to: str) -> Sequence[Problem]:
    """Return the sagas that are not at the end of their streams."""
    rows = await postgres.fetch(NOT_AT_END, saga=saga, subscribes_to=subscribes_to)
    return [_describe_behind(saga, row) for row in rows]


def _describe_behind(saga: str, row: Any) -> Problem:
    subject = f"saga {saga} {streams.aggregate_id(row.id)}"
    if row.failed_input:
        return Problem("sagas", subject, f"failed input: {row.failed_input}")
    text = f"consumed version {row.consumed} of {row.version}"
    return Problem("sagas", subject, text, transient=row.consumed < row.version)


async def _find_contradicted_steps(postgres: PostgresReader) -> Sequence[Problem]:
    return [
        Problem(
            "sagas",
            f"saga {row.saga} {row.id}",
            f"{row.step} (attempt {row.attempt}) has outcome {row.outcome}, "
            f"the write model recorded {row.recorded or 'nothing'}",
        )
        for row in await postgres.fetch_joined(CONTRADICTED_STEPS)
    ]
