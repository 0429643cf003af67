"""Writes the reports of this process."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from time import monotonic
from typing import NoReturn

from runtime.process import logs
from runtime.process.version import VERSION
from runtime.process_reports.report import INTERVAL, Report, encode
from runtime.process_reports.window import Window

TIMEOUT = 2.0
"""Seconds that the store may take for a report. One that is late is replaced by the next."""

Write = Callable[[bytes], Awaitable[None]]
"""Stores the report of this process in place of its last one."""

log = logs.get_logger(__name__)


class Reporter:
    """Reports this process until it ends.

    Args:
        kind: for instance `command_server`.
        contexts: the names of the contexts that it runs.
        window: its measurements.
        write: stores a report.
    """

    def __init__(self, kind: str, contexts: Sequence[str], window: Window, write: Write) -> None:
        self._kind = kind
        self._contexts = list(contexts)
        self._window = window
        self._write = write
        self._began_at = monotonic()
        self.get_leads: Callable[[], bool | None] = lambda: None
        self.get_partitions: Callable[[], Collection[int] | None] = lambda: None
        self.get_staleness: Callable[[], dict[str, float]] = dict

    async def run(self) -> NoReturn:
        """Report until cancelled. While the store is away, only the reports are missing."""
        failures = logs.RepeatedErrors(log, "Process report not written")
        while True:
            now = monotonic()
            try:
                self._window.advance(now)
                async with asyncio.timeout(TIMEOUT):
                    await self._write(encode(self.create_report(now)))
                failures.reset()
            except Exception as error:  # also a bug in a report: the process is worth more than it
                failures.report(error)
            await asyncio.sleep(INTERVAL)

    def create_report(self, now: float) -> Report:
        """Return the report at a moment of the monotonic clock."""
        partitions = self.get_partitions()
        return Report(
            kind=self._kind,
            version=VERSION,
            uptime=round(now - self._began_at, 1),
            contexts=self._contexts,
            leads=self.get_leads(),
            partitions=None if partitions is None else sorted(partitions),
            staleness=self.get_staleness(),
            slices=self._window.list_slices(now),
        )
