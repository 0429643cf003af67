"""Skipped events: verify folds without them, lists them, and finds what a projector did not skip."""

import json

from tests.support.harness.verified_system import CHEQUE, HISTORY, System
from tests.support.ledger.stubs import types

ADD = """
INSERT INTO skipped_events (consumer, stream, version, reason, subject)
VALUES ($1, 'ledger.cheque.c-2', 2, 'it was endorsed twice', 'ada')
"""


async def skip(system: System, *projections: str) -> None:
    for projection in projections:
        await system.sql(ADD, f"projection {projection}")


async def test_a_view_that_has_not_skipped_the_event_differs(system: System) -> None:
    await skip(system, CHEQUE.projection, HISTORY.projection)
    problems = await system.find_problems()
    assert any(problem.startswith("view ledger.cheque c-2: endorsers is ") for problem in problems)
    assert "history ledger.cheque_history c-2: entry 2 has no event that counts" in problems


async def test_a_history_without_the_entry_is_clean(system: System) -> None:
    await skip(system, HISTORY.projection)
    await system.redis.hdel(HISTORY.history("c-2"), "2")
    report = await system.verify()
    assert report.clean, report.to_text()
    (skipped,) = report.skipped
    assert (skipped.consumer, skipped.stream, skipped.version, skipped.reason) == (
        f"projection {HISTORY.projection}",
        "ledger.cheque.c-2",
        2,
        "it was endorsed twice",
    )
    assert "1 event: left out by operators' acts" in report.to_text()
    assert json.loads(report.to_json())["skipped"][0]["subject"] == "ada"


async def test_other_projections_are_compared_as_before(system: System) -> None:
    await skip(system, HISTORY.projection)
    await system.redis.hdel(HISTORY.history("c-2"), "2")
    await system.change_view(CHEQUE, "c-2", state=types.Cheque.STATE_WRITTEN)
    assert await system.find_problems() == [
        "view ledger.cheque c-2: state is STATE_WRITTEN, expected STATE_VOIDED (version 3)"
    ]
