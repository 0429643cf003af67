"""The chains of the streams: each event has the digest of the one before it and of itself."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from contracts.audit.digests import digest_event
from operations.audit.database import Driver
from operations.audit.findings import Report

PAGE = 5_000
"""Events that are read at once."""
RECORD = "events"
READ_EVENTS = """
SELECT stream, version, type, recorded_at, metadata::text, data, digest FROM events
WHERE (stream, version) > ($1, $2) ORDER BY stream, version LIMIT $3
"""
# Read in one statement, which sees a stream and its events at one moment.
FIND_WRONG_ENDS = """
SELECT s.id, s.version, e.version IS NULL AS is_cut FROM streams s
LEFT JOIN events e ON e.stream = s.id AND e.version = s.version
WHERE s.version > 0 AND (e.version IS NULL OR (e.digest IS NOT NULL AND e.digest IS DISTINCT FROM s.digest))
"""
FIND_BEYOND = """
SELECT e.stream, max(e.version) AS version FROM events e LEFT JOIN streams s ON s.id = e.stream
WHERE s.id IS NULL OR e.version > s.version GROUP BY 1
"""


async def verify_chains(driver: Driver, report: Report, observe: Callable[[int], None]) -> None:
    """Verify each event against the one before it, and the last one against its stream."""
    chain, last = _Chain(), ("", 0)
    while page := await driver.fetch(READ_EVENTS, *last, PAGE):
        for subject, text in await asyncio.to_thread(lambda: list(chain.check(page))):
            report.add(RECORD, subject, text)
        report.events += len(page)
        report.unchained += sum(event["digest"] is None for event in page)
        last = page[-1]["stream"], page[-1]["version"]
        observe(len(page))
    for stream, version, is_cut in await driver.fetch(FIND_WRONG_ENDS):
        if is_cut:
            report.add(RECORD, stream, f"version {version}, its last one, is missing")
        else:
            report.add(RECORD, f"{stream}@{version}", "it is not the end of its stream's chain")
    for stream, version in await driver.fetch(FIND_BEYOND):
        report.add(RECORD, f"{stream}@{version}", "its stream ends before it")


class _Chain:
    """The chain of the stream that is being read."""

    def __init__(self) -> None:
        self._stream = ""
        self._version = 0
        self._digest = b""

    def check(self, events: Sequence[Any]) -> Iterator[tuple[str, str]]:
        """Yield the events that differ, and how."""
        for stream, version, type_name, recorded_at, metadata, data, digest in events:
            if stream != self._stream:
                self._stream, self._version, self._digest = stream, 0, b""
            for missing in _limit(range(self._version + 1, version)):
                yield f"{stream}@{missing}", "it is missing"
            self._version = version
            if digest is None:
                continue
            computed = digest_event(self._digest, stream, version, type_name, recorded_at, metadata, data)
            if computed != digest:
                yield f"{stream}@{version}", "its digest is not that of its content after the event before it"
            self._digest = digest


def _limit(versions: range) -> Iterator[int]:
    """Yield the first of many."""
    yield from versions[:100]
