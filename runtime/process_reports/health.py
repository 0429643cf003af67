"""The five figures that tell whether callers are served well, from the reports of all processes."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import ceil

from runtime.process.settings import Settings
from runtime.process_reports.report import COMMANDS, FAILED_EVENTS, LAG, QUERIES, WINDOW, Slice
from runtime.process_reports.stored_report import MAX_LEAD, StoredReport
from runtime.telemetry.instruments import SECONDS

READ_TIMEOUT = 1.0
"""Seconds for the reports of one store."""

Read = Callable[[], Awaitable[Sequence[StoredReport]]]


@dataclass(frozen=True, slots=True)
class Figure:
    """A health figure, as `diptych.operations.v1.HealthFigure` returns it."""

    name: str
    value: float | None
    """None if there was nothing to measure, or the reports cannot be read."""
    threshold: float
    unit: str
    good: bool
    """Whether the value is on the right side of the threshold, or there is none."""


@dataclass(frozen=True, slots=True)
class Health:
    """What all reports say together."""

    figures: Sequence[Figure]
    living: Sequence[StoredReport]
    """The last reports of all processes that live."""
    errors: Sequence[str]
    """Why the reports of a store are missing, for instance `PostgreSQL: TimeoutError`."""


class Reports:
    """Reads the reports of all processes.

    Args:
        settings: have the thresholds.
        read_postgres: reads those in PostgreSQL.
        read_redis: reads those in Redis.
    """

    def __init__(self, settings: Settings, read_postgres: Read, read_redis: Read) -> None:
        self._settings = settings
        self._reads = {"PostgreSQL": read_postgres, "Redis": read_redis}

    async def read(self) -> Health:
        """Return the health, within READ_TIMEOUT. The reports of a store that is away are missing."""
        parts = await asyncio.gather(*map(self._read_store, self._reads))
        reports = list(chain.from_iterable(reports for reports, _ in parts))
        return Health(
            compute_figures(reports, self._settings),
            sorted((each for each in reports if each.is_living), key=lambda each: each.report.kind),
            [error for _, error in parts if error],
        )

    async def _read_store(self, store: str) -> tuple[Sequence[StoredReport], str]:
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                return await self._reads[store](), ""
        except Exception as error:
            return (), f"{store}: {str(error) or type(error).__name__}".partition("\n")[0]


def compute_figures(reports: Sequence[StoredReport], settings: Settings) -> list[Figure]:
    """Return the five figures of the last WINDOW seconds."""
    usable = [each for each in reports if each.age >= -MAX_LEAD]
    slices = list(_list_slices(usable))
    success_rate = settings.min_command_success_rate
    rate = _compute_success_rate(slices)
    query_time = _compute_p99(slices, QUERIES, is_get)
    lag = _compute_p99(slices, LAG)
    failed = sum(sum(each.counts.get(FAILED_EVENTS, {}).values()) for each in slices)
    has_projector = any(each.report.kind == "projector" for each in usable)
    staleness = _compute_staleness(usable)
    query_time = None if query_time is None else query_time * 1000
    rate_is_good = rate is None or rate >= success_rate
    return [
        Figure("command success rate", rate, success_rate, "%", rate_is_good),
        _limit("query response time", query_time, settings.max_query_response_time * 1000, "ms"),
        _limit("event processing lag", lag, settings.max_event_processing_lag, "s"),
        _limit("failed events", failed if has_projector else None, settings.max_failed_events, "events"),
        _limit("read model staleness", staleness, settings.max_read_model_staleness, "s"),
    ]


def _limit(name: str, value: float | None, maximum: float, unit: str) -> Figure:
    return Figure(name, value, maximum, unit, value is None or value <= maximum)


def _list_slices(reports: Sequence[StoredReport]) -> Iterator[Slice]:
    for stored in reports:
        yield from (each for each in stored.report.slices if stored.age + each.age < WINDOW)


def _compute_success_rate(slices: Sequence[Slice]) -> float | None:
    """Return the percentage of commands that were accepted, or rejected by a rule."""
    commands: Counter[str] = Counter()
    for each in slices:
        commands.update(each.counts.get(COMMANDS, {}))
    total = commands.total()
    return 100 * (total - commands["failed"]) / total if total else None


def is_get(method: str) -> bool:
    """Return whether a method returns one record: `<package>.QueryService/GetOrder`."""
    return method.rpartition("/")[2].startswith("Get")


def _compute_p99(
    slices: Sequence[Slice], name: str, is_counted: Callable[[str], bool] = lambda _: True
) -> float | None:
    buckets: Counter[int] = Counter()
    for each in slices:
        for label, durations in each.durations.get(name, {}).items():
            if is_counted(label):
                buckets.update(durations)
    return compute_percentile(buckets, 0.99)


def compute_percentile(buckets: Counter[int], share: float) -> float | None:
    """Return the duration that a share of all does not exceed, interpolated within its bucket.

    A duration beyond the last bound counts as twice that bound.
    """
    rank, below = ceil(buckets.total() * share), 0
    for bucket in sorted(buckets):
        if below + buckets[bucket] >= rank > 0:
            low = SECONDS[bucket - 1] if bucket else 0.0
            high = SECONDS[bucket] if bucket < len(SECONDS) else 2 * SECONDS[-1]
            return low + (high - low) * (rank - below) / buckets[bucket]
        below += buckets[bucket]
    return None


def _compute_staleness(reports: Sequence[StoredReport]) -> float | None:
    """Return the staleness of the projection that is the furthest behind.

    A report says up to which moment a projection had everything. The latest such moment counts, also that of
    a process that is gone, so the staleness grows while nobody can report another.
    """
    by_projection: dict[str, float] = {}
    for stored in reports:
        for projection, seconds in stored.report.staleness.items():
            age = max(0.0, stored.age + seconds)
            by_projection[projection] = min(age, by_projection.get(projection, age))
    return max(by_projection.values(), default=None)
