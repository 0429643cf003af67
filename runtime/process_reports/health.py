"""The health of the system, from the reports of all processes."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from runtime.process.settings import Settings
from runtime.process_reports.figures import POSTGRESQL, REDIS, Figure, compute_figures
from runtime.process_reports.stored_report import StoredReport

READ_TIMEOUT = 1.0
"""Seconds for the reports of one store."""

Read = Callable[[], Awaitable[Sequence[StoredReport]]]


@dataclass(frozen=True, slots=True)
class Health:
    """The figures of all reports together."""

    figures: Sequence[Figure]
    living: Sequence[StoredReport]
    """The last reports of all processes that live."""
    gone: Sequence[StoredReport]
    """Those of processes that have reported in the last WINDOW seconds, and no more."""
    errors: Mapping[str, str]
    """Why the reports of a store are missing, by its name."""


class Reports:
    """Reads the reports of all processes.

    Args:
        settings: have the thresholds.
        read_postgres: reads those in PostgreSQL.
        read_redis: reads those in Redis.
    """

    def __init__(self, settings: Settings, read_postgres: Read, read_redis: Read) -> None:
        self._settings = settings
        self._reads = {POSTGRESQL: read_postgres, REDIS: read_redis}

    async def read(self) -> Health:
        """Return the health, within READ_TIMEOUT. The reports of a store that is away are missing."""
        parts = await asyncio.gather(*map(self._read_store, self._reads))
        reports = list(chain.from_iterable(reports for reports, _ in parts))
        errors = {store: error for store, (_, error) in zip(self._reads, parts, strict=True) if error}
        return self._assess(reports, errors)

    def describe_failure(self, error: str) -> Health:
        """Return the health if no report can be read."""
        return self._assess((), dict.fromkeys(self._reads, error))

    def _assess(self, reports: Sequence[StoredReport], errors: Mapping[str, str]) -> Health:
        return Health(
            compute_figures(reports, self._settings, errors),
            sorted((each for each in reports if each.is_living), key=lambda each: each.report.kind),
            sorted((each for each in reports if each.is_gone), key=lambda each: each.report.kind),
            errors,
        )

    async def _read_store(self, store: str) -> tuple[Sequence[StoredReport], str]:
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                return await self._reads[store](), ""
        except Exception as error:
            return (), (str(error) or type(error).__name__).partition("\n")[0]
