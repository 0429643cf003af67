"""The five figures by which the system's health is judged, computed from reports."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

from runtime.process.settings import Settings
from runtime.process_reports.report import COMMANDS, FAILED_EVENTS, INTERVAL, LAG, QUERIES, WINDOW, Slice
from runtime.process_reports.reporter import TIMEOUT
from runtime.process_reports.stored_report import MAX_LEAD, StoredReport
from runtime.telemetry.instruments import SECONDS

OVERDUE = INTERVAL + TIMEOUT
"""Seconds after a report within which a living process has written the next one."""

SUCCESS_RATE = "command success rate"
QUERY_TIME = "query response time"
PROCESSING_LAG = "event processing lag"
STALENESS = "read model staleness"
POSTGRESQL, REDIS = "PostgreSQL", "Redis"
STORES = {
    SUCCESS_RATE: POSTGRESQL,
    QUERY_TIME: REDIS,
    PROCESSING_LAG: REDIS,
    FAILED_EVENTS: REDIS,
    STALENESS: REDIS,
}
"""By figure the store whose reports it needs. Process managers report their queries in PostgreSQL."""
NO_ERRORS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Figure:
    """A health figure, as `diptych.operations.v1.HealthFigure` returns it."""

    name: str
    value: float | None
    """None if there was nothing to measure, or the reports cannot be read."""
    threshold: float
    unit: str
    good: bool
    """Whether the value is on the right side of the threshold, or there was nothing to measure."""
    error: str = ""
    """Why there is no value; empty also if there was nothing to measure."""
    last_bad_age: float | None = None
    """Of a bad figure the seconds since the last measurement that was bad; None for the staleness."""


def compute_figures(
    reports: Sequence[StoredReport], settings: Settings, errors: Mapping[str, str] = NO_ERRORS
) -> list[Figure]:
    """Return the five figures of the last WINDOW seconds.

    Args:
        reports: of all processes.
        settings: have the thresholds.
        errors: why the reports of a store are missing, by its name.
    """
    figures = _measure([each for each in reports if each.age >= -MAX_LEAD], settings)
    return [_mark_unknown(each, errors.get(STORES[each.name], "")) for each in figures]


def _mark_unknown(figure: Figure, error: str) -> Figure:
    """Return the figure without a value if the reports that it needs are missing."""
    if not error:
        return figure
    return Figure(figure.name, None, figure.threshold, figure.unit, good=False, error=error)


def _measure(usable: Sequence[StoredReport], settings: Settings) -> list[Figure]:
    aged_slices = list(_list_slices(usable))
    slices = [each for _, each in aged_slices]
    success_rate = settings.min_command_success_rate
    rate = _compute_success_rate(slices)
    query_time = _compute_p99(slices, QUERIES, is_get)
    lag = _compute_p99(slices, LAG)
    failed = sum(map(_count_failed_events, slices))
    has_projector = any(each.report.kind == "projector" for each in usable)
    max_query_time, max_lag = settings.max_query_response_time, settings.max_event_processing_lag
    figures = [
        Figure(SUCCESS_RATE, rate, success_rate, "%", rate is None or rate >= success_rate),
        _limit(QUERY_TIME, None if query_time is None else query_time * 1000, max_query_time * 1000, "ms"),
        _limit(PROCESSING_LAG, lag, max_lag, "s"),
        _limit(FAILED_EVENTS, failed if has_projector else None, settings.max_failed_events, "events"),
    ]
    is_bad: Mapping[str, Callable[[Slice], bool]] = {
        SUCCESS_RATE: lambda each: each.counts.get(COMMANDS, {}).get("failed", 0) > 0,
        QUERY_TIME: lambda each: _has_longer(each, QUERIES, max_query_time, is_get),
        PROCESSING_LAG: lambda each: _has_longer(each, LAG, max_lag),
        FAILED_EVENTS: lambda each: _count_failed_events(each) > 0,
    }
    return [
        *(_date(each, aged_slices, is_bad[each.name]) for each in figures),
        _limit(STALENESS, _compute_staleness(usable), settings.max_read_model_staleness, "s"),
    ]


def _date(
    figure: Figure, aged_slices: Sequence[tuple[float, Slice]], is_bad: Callable[[Slice], bool]
) -> Figure:
    """Return the figure, if it is bad with the age of the last bad measurement."""
    if figure.good:
        return figure
    return replace(figure, last_bad_age=min((age for age, each in aged_slices if is_bad(each)), default=None))


def _limit(name: str, value: float | None, maximum: float, unit: str) -> Figure:
    return Figure(name, value, maximum, unit, value is None or value <= maximum)


def _list_slices(reports: Sequence[StoredReport]) -> Iterator[tuple[float, Slice]]:
    """Yield the slices of the last WINDOW seconds with their ages."""
    for stored in reports:
        for each in stored.report.slices:
            if stored.age + each.age < WINDOW:
                yield max(0.0, stored.age + each.age), each


def _count_failed_events(each: Slice) -> int:
    return sum(each.counts.get(FAILED_EVENTS, {}).values())


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


def _has_longer(
    each: Slice, name: str, limit: float, is_counted: Callable[[str], bool] = lambda _: True
) -> bool:
    """Return whether a slice has a duration in a bucket that goes beyond a limit."""
    first = bisect_right(SECONDS, limit)
    durations = each.durations.get(name, {})
    return any(
        bucket >= first for label, buckets in durations.items() if is_counted(label) for bucket in buckets
    )


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
    a process that is gone, so the staleness grows while nobody can report another. Until the next report is
    overdue, it does not: nobody has measured anything by then.
    """
    by_projection: dict[str, float] = {}
    for stored in reports:
        for projection, seconds in stored.report.staleness.items():
            age = seconds + max(0.0, stored.age - OVERDUE)
            by_projection[projection] = min(age, by_projection.get(projection, age))
    return max(by_projection.values(), default=None)
