"""The process manager's rows against the events: every stream consumed to its end, every step on record."""

from collections.abc import Mapping, Sequence
from functools import partial
from time import monotonic

from operations.server_errors import UNREACHABLE
from operations.verify.checks import saga_streams
from operations.verify.model import Aggregate, Problem, SagaSpec
from operations.verify.recheck import confirm
from operations.verify.report import Report
from operations.verify.sources import PostgresReader

NEVER_RAN = "no process manager has run on this database: sagas not compared"

CHECKPOINT_COUNT = "SELECT count(*) FROM saga_checkpoints"

COUNTS = """
SELECT (SELECT count(*) FROM sagas), (SELECT count(*) FROM saga_steps),
  (SELECT count(*) FROM sagas WHERE archived_steps IS NOT NULL)
"""

NAMES = "SELECT saga, count(*) AS instances FROM sagas GROUP BY saga ORDER BY saga"

CONTRADICTED_STEPS = """
SELECT s.saga, s.id, s.step, s.attempt, s.outcome, r.outcome AS recorded
FROM saga_steps s LEFT JOIN requests r ON r.request_id = s.request_id
WHERE s.method LIKE '%.CommandService/%' AND s.outcome IS NOT NULL
AND (r.outcome IS NOT NULL OR coalesce(s.answered_at, 'infinity') >= coalesce(
    (SELECT kept_since FROM retention WHERE kind = 'requests'), '-infinity'
))
AND CASE WHEN s.outcome = 'OK' THEN r.outcome IS DISTINCT FROM 'ACCEPTED'
         ELSE coalesce(r.outcome, s.outcome) <> s.outcome END
ORDER BY s.saga, s.id, s.number LIMIT 1000
"""
"""Steps whose outcome is not the one in `requests`. The write model does not record invalid requests, and
housekeeping removes old ones."""


async def check(
    postgres: PostgresReader,
    specs: Sequence[SagaSpec],
    aggregates: Mapping[str, Aggregate],
    report: Report,
    within: float,
    *,
    all_contexts: bool = False,
) -> None:
    """Check the sagas.

    Args:
        postgres: the rows of the sagas, and the events.
        specs: the sagas.
        aggregates: the folds, by stream type.
        report: receives the findings.
        within: seconds for sagas that are behind to catch up.
        all_contexts: whether `specs` are those of all installed contexts, so that no other saga should exist.
    """
    ((checkpoints,),) = await postgres.fetch(CHECKPOINT_COUNT)
    if not checkpoints:
        report.counts.update({"sagas": 0, "steps": 0, "archived sagas": 0})
        report.notes.append(NEVER_RAN)
        return
    deadline = monotonic() + within
    for spec in specs:
        await saga_streams.check(postgres, spec, aggregates, report, deadline)
        await _run_check(spec, postgres, aggregates, report, deadline)
    await _report_unknown(postgres, specs, report, all_contexts)
    report.add_all(await confirm(partial(_find_contradicted_steps, postgres), deadline))
    ((sagas, steps, archived),) = await postgres.fetch(COUNTS)
    report.counts.update({"sagas": sagas, "steps": steps, "archived sagas": archived})


async def _report_unknown(
    postgres: PostgresReader, specs: Sequence[SagaSpec], report: Report, all_contexts: bool
) -> None:
    """Report the sagas that no context has: a finding if all contexts are chosen, otherwise a note."""
    known = {spec.name for spec in specs}
    for row in await postgres.fetch(NAMES):
        if row.saga in known:
            continue
        text = f"{row.instances} instances not compared: no chosen context has this saga"
        if all_contexts:
            report.add(Problem("sagas", f"saga {row.saga}", text))
        else:
            report.notes.append(f"saga {row.saga}: {text}")


async def _run_check(
    spec: SagaSpec,
    postgres: PostgresReader,
    aggregates: Mapping[str, Aggregate],
    report: Report,
    deadline: float,
) -> None:
    """Run a saga's own check. One that fails on a row is a finding, and the other checks go on."""
    if spec.check is None:
        return
    try:
        await spec.check(postgres, aggregates, report, deadline)
    except UNREACHABLE:
        raise
    except Exception as error:  # a row may hold anything
        text = f"its check failed: {type(error).__name__}: {error}"
        report.add(Problem("sagas", f"saga {spec.name}", text))


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
