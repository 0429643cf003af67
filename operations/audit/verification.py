"""`diptych audit verify`: compares everything that is on record with its chains and its checkpoints."""

from asyncio import TaskGroup
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from contracts.audit.checkpoint import Checkpoint
from operations.audit.answers import verify_answers, verify_outcomes
from operations.audit.chains import verify_chains
from operations.audit.database import connect
from operations.audit.findings import Report
from operations.audit.seals import SealVerification

COUNT = """
SELECT (SELECT coalesce(sum(row_count), 0) FROM audit_segments)
  + (SELECT greatest(reltuples, 0) FROM pg_class WHERE oid = 'events'::regclass)
"""
"""The rows that are read, roughly."""


async def verify(
    database_url: str,
    public_keys: Mapping[str, bytes],
    kept: Iterable[Checkpoint] = (),
    *,
    max_findings: int = 20,
    observe: Callable[[int, int], None] = lambda *_: None,
) -> Report:
    """Return what differs from what was recorded.

    Args:
        database_url: of the write model.
        public_keys: those that sign checkpoints, by id.
        kept: checkpoints that were kept elsewhere.
        max_findings: findings of each record that are named.
        observe: called with the number of rows that are verified, and of all.
    """
    report, done = Report(max_findings), 0
    async with connect(database_url) as driver:
        total = int(await driver.fetchval(COUNT))

        def advance(rows: int) -> None:
            nonlocal done
            done += rows
            observe(done, total)

        by_number = {checkpoint.number: checkpoint for checkpoint in kept}
        seals = SealVerification(driver, public_keys, by_number, report, advance)
        async with connect(database_url) as second, connect(database_url) as third:
            # PostgreSQL reads for one while the others compute.
            await _run_together(
                seals.run(), verify_chains(second, report, advance), verify_answers(third, report)
            )
        await verify_outcomes(driver, report)
    report.findings.sort(key=lambda finding: finding.record)
    return report


async def _run_together(*parts: Coroutine[Any, Any, None]) -> None:
    """Run all; raise the first error, as if there were one part alone."""
    try:
        async with TaskGroup() as tasks:
            for part in parts:
                tasks.create_task(part)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
