"""Invariants after a fault: PostgreSQL holds every answer to a caller, and `diptych verify` is clean."""

import json
from collections import defaultdict
from contextlib import suppress
from uuid import UUID

import asyncpg

from devstack.stack import Stack
from operations.verify.report import Report
from operations.verify.sources import StreamChanged
from operations.verify.verification import verify
from tests.support.harness.traffic import Answers

RECOVERY = 40.0
"""Seconds that the system has to recover without help."""


async def assert_consistent(stack: Stack, answers: Answers) -> None:
    await assert_answers_recorded(stack, answers)
    report = await verify_stack(stack)
    assert report.clean, report.to_text()


async def verify_stack(stack: Stack) -> Report:
    """Verify the stack; a second time if the relay made the stream anew meanwhile: it had lost messages."""
    with suppress(StreamChanged):
        return await verify(stack.settings, within=RECOVERY)
    return await verify(stack.settings, within=RECOVERY)


async def assert_answers_recorded(stack: Stack, answers: Answers) -> None:
    """Compare each answer with the record of its request and with the events of that request."""
    ids = [UUID(request_id) for request_id in (*answers.accepted, *answers.rejected)]
    connection = await asyncpg.connect(stack.settings.database_url)
    try:
        rows = await connection.fetch("SELECT * FROM requests WHERE request_id = ANY ($1)", ids)
        events = await connection.fetch(
            "SELECT request_id, stream, version FROM event_log WHERE request_id = ANY ($1)",
            [str(request_id) for request_id in ids],
        )
    finally:
        await connection.close()
    effects: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for event in events:
        effects[event["request_id"]].append((event["stream"], event["version"]))
    records = {str(row["request_id"]): row for row in rows}
    assert len(rows) == len(ids)
    for request_id, (method, receipt) in answers.accepted.items():
        change = (f"ledger.cheque.{receipt.aggregate_id}", receipt.version)
        assert records[request_id]["outcome"] == "ACCEPTED"
        assert list(json.loads(records[request_id]["receipt"]).items()) == [change]
        effect = effects.pop(request_id, [])
        assert effect == [change] or (not effect and method != "WriteCheque"), (
            request_id,
            method,
            effect,
        )
    for request_id, reason in answers.rejected.items():
        assert records[request_id]["outcome"] == reason
    assert not effects, "a rejected command has no effect"
