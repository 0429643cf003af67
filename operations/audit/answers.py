"""Answers to requests, and outcomes of acts, against what was recorded with them."""

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

from command_server.kernel.request_ages import MAX_AHEAD
from contracts.audit.digests import digest_request
from operations.audit.database import Driver
from operations.audit.findings import REQUESTS, Report

PAGE = 5_000
"""Audit rows that are compared at once."""
JOIN_BY_KEY = "SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off"
"""A page is a small part of the answers, all of which another plan would read."""
READ_LAST = "SELECT last_value FROM audit_number"
READ_ANSWERS = """
SELECT a.caller, a.request_id::text AS request_id, a.request_digest, r.caller IS NOT NULL AS is_here, r.type,
  r.hash, r.outcome, r.rejection::text AS rejection, r.receipt::text AS receipt, r.recorded_at,
  coalesce(a.recorded_at < k.kept_since - $3::interval, false) AS may_be_removed
FROM audit a LEFT JOIN requests r ON r.caller = a.caller AND r.request_id = a.request_id
LEFT JOIN retention k ON k.kind = 'requests'
WHERE a.number > $1 AND a.number <= $2 AND a.request_digest IS NOT NULL
"""
FIND_INSERTED = """
SELECT r.caller, r.request_id::text FROM requests r
WHERE NOT EXISTS (SELECT FROM audit a WHERE a.caller = r.caller AND a.request_id = r.request_id)
  AND r.recorded_at >= coalesce((SELECT kept_since FROM retention WHERE kind = 'audit'), '-infinity')
"""
FIND_OUTCOMES = """
SELECT coalesce(a.number, o.act) AS number, a.number IS NULL AS is_removed, o.act IS NULL AS is_alone
FROM operator_acts a FULL JOIN operator_act_outcomes o ON o.act = a.number
WHERE (a.outcome, a.duration_us) IS DISTINCT FROM (o.outcome, o.duration_us)
  AND NOT (o.act IS NULL AND a.number < coalesce((SELECT min(act) FROM operator_act_outcomes), 2^62))
  AND NOT (a.number IS NULL
    AND o.recorded_at < coalesce(
      (SELECT kept_since FROM retention WHERE kind = 'operator_acts'), '-infinity'
    ))
"""


async def verify_answers(driver: Driver, report: Report) -> None:
    """Compare each answer that is still kept with the digest in its audit row."""
    last = await driver.fetchval(READ_LAST)
    await driver.execute(JOIN_BY_KEY)
    for first in range(0, last, PAGE):
        rows = await driver.fetch(READ_ANSWERS, first, first + PAGE, MAX_AHEAD)
        for subject, text in await asyncio.to_thread(lambda: list(_check(rows))):  # noqa: B023 - awaited
            report.add(REQUESTS, subject, text)
        report.requests += sum(row["is_here"] for row in rows)
    await driver.execute("RESET ALL")
    for caller, request_id in await driver.fetch(FIND_INSERTED):
        report.add(REQUESTS, f"{caller} {request_id}", "it has no audit row")


def _check(rows: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Yield the answers that differ, and how."""
    for row in rows:
        subject = f"{row['caller']} {row['request_id']}"
        if not row["is_here"]:
            if not row["may_be_removed"]:
                yield subject, "it was deleted, and its audit row is here"
        elif _digest(row) != row["request_digest"]:
            yield subject, "it is not the answer that was recorded"


async def verify_outcomes(driver: Driver, report: Report) -> None:
    """Compare the outcomes of operators' acts with those that were recorded first."""
    for number, is_removed, is_alone in await driver.fetch(FIND_OUTCOMES):
        if is_removed:
            text = "it was deleted, and its outcome is here"
        elif is_alone:
            text = "its outcome was inserted, or the record of it was deleted"
        else:
            text = "its outcome is not the one that was recorded"
        report.add("operator_acts", f"row {number}", text)


def _digest(row: Any) -> bytes:
    return digest_request(
        row["caller"],
        row["request_id"],
        row["type"],
        row["hash"],
        row["outcome"],
        row["rejection"],
        row["receipt"],
        row["recorded_at"],
    )
