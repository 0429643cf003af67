"""The process manager's rows against the events: every stream heard to its end, every step on record."""

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from contracts import streams
from operations.verify.checks import fulfilment
from operations.verify.recheck import settled
from operations.verify.report import Problem, Report
from operations.verify.sources.event_store import Store

SUBSCRIPTIONS: Mapping[str, str] = {
    "fulfilment.fulfilment": "ordering.order",
    "inventory.reservation_deadline": "inventory.reservation",
    "banking.hold_deadline": "banking.hold",
}
"""Every kind of saga, and the streams that it follows."""

RUNS = "SELECT count(*) FROM saga_checkpoints"

NEVER_RAN = "no process manager has ever run here: no stream is heard by a saga"

COUNTS = "SELECT (SELECT count(*) FROM sagas), (SELECT count(*) FROM saga_steps)"

HEARD = """
SELECT s.id, s.version, coalesce(g.version, 0) AS heard, coalesce(g.failed_input, '') AS failed_input
FROM streams s LEFT JOIN sagas g ON g.saga = :saga AND g.id = substr(s.id, length(:subscribes_to) + 2)
WHERE s.type = :subscribes_to AND g.version IS DISTINCT FROM s.version ORDER BY s.id LIMIT 1000
"""

UNFOUNDED = """
SELECT id FROM sagas g WHERE saga = :saga
AND NOT EXISTS (SELECT FROM streams WHERE id = :subscribes_to || '.' || g.id) ORDER BY id LIMIT 1000
"""

MISANSWERED = """
SELECT s.saga, s.id, s.step, s.attempt, s.outcome, r.outcome AS recorded
FROM saga_steps s LEFT JOIN requests r ON r.request_id = s.request_id
WHERE s.method LIKE '%.CommandService/%' AND s.outcome IS NOT NULL
AND CASE WHEN s.outcome = 'OK' THEN r.outcome IS DISTINCT FROM 'ACCEPTED'
         ELSE coalesce(r.outcome, s.outcome) <> s.outcome END
ORDER BY s.saga, s.id, s.number LIMIT 1000
"""
"""What was answered otherwise than the write model has it on record. An invalid request is on no record."""


async def check(store: Store, report: Report, within: float) -> None:
    """Compare all sagas.

    Args:
        store: where they are.
        report: takes what is found.
        within: seconds that sagas which are behind have to catch up.
    """
    ((run,),) = await store.rows(RUNS)
    if not run:
        report.counted.update(sagas=0, steps=0)
        report.notes.append(NEVER_RAN)
        return
    deadline = monotonic() + within
    for saga, subscribes_to in SUBSCRIPTIONS.items():

        async def unheard(saga: str = saga, subscribes_to: str = subscribes_to) -> Sequence[Problem]:
            return [
                _unheard(saga, row) for row in await store.rows(HEARD, saga=saga, subscribes_to=subscribes_to)
            ]

        report.add_all(await settled(unheard, deadline))
        for (id_,) in await store.rows(UNFOUNDED, saga=saga, subscribes_to=subscribes_to):
            report.add(Problem("sagas", f"saga {saga} {id_}", f"there is no {subscribes_to}.{id_}"))
    report.add_all(await settled(lambda: _misanswered(store), deadline))
    await fulfilment.check(store, report, deadline)
    ((sagas, steps),) = await store.rows(COUNTS)
    report.counted.update(sagas=sagas, steps=steps)


def _unheard(saga: str, row: Any) -> Problem:
    subject = f"saga {saga} {streams.aggregate_id(row.id)}"
    if row.failed_input:
        return Problem("sagas", subject, row.failed_input)
    text = f"it has heard version {row.heard} of {row.version}"
    return Problem("sagas", subject, text, waits=row.heard < row.version)


async def _misanswered(store: Store) -> Sequence[Problem]:
    return [
        Problem(
            "sagas",
            f"saga {row.saga} {row.id}",
            f"{row.step} (attempt {row.attempt}) was told {row.outcome}, on record is {row.recorded}",
        )
        for row in await store.joined(MISANSWERED)
    ]
