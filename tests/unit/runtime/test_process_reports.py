"""The reports of processes: their sliding windows, and the health figures that follow from them."""

import asyncio
from collections import Counter as CounterOf
from collections.abc import Mapping

import pytest

from runtime.process.settings import Settings
from runtime.process_reports.figures import OVERDUE, Figure, compute_figures, compute_percentile
from runtime.process_reports.health import Reports
from runtime.process_reports.report import (
    COMMANDS,
    FAILED_EVENTS,
    INTERVAL,
    LAG,
    QUERIES,
    WINDOW,
    Report,
    Slice,
    decode,
    encode,
)
from runtime.process_reports.stored_report import StoredReport
from runtime.process_reports.window import SLICE, Window
from runtime.telemetry import instruments
from runtime.telemetry.instruments import SECONDS, Counter, Histogram

GET, LIST = "shop.v1.QueryService/GetOrder", "shop.v1.QueryService/ListOrders"


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruments, "_registry", {})


def stored(age: float, *slices: Slice, kind: str = "command_server", **fields: object) -> StoredReport:
    report = Report(kind, "1.0", 60.0, slices=list(slices), **fields)  # type: ignore[arg-type]
    return StoredReport("host:1", age, decode(encode(report)))


def figures(*reports: StoredReport, **settings: float) -> Mapping[str, Figure]:
    return {each.name: each for each in compute_figures(reports, Settings(**settings))}  # type: ignore[arg-type]


def commands(age: float = 0.0, **counts: int) -> Slice:
    return Slice(age, {COMMANDS: counts})


def sum_counts(window: Window, now: float) -> int:
    return sum(sum(each.counts[COMMANDS].values()) for each in window.list_slices(now))


def test_a_window_has_what_was_measured_in_its_time_and_no_more() -> None:
    counter, now = Counter("commands", "1", "Commands", "outcome"), 1_000.0
    counter.count("before the process reports")
    window = Window({COMMANDS: (counter, lambda key: str(key[0]))})
    while now < 1_000 + 2 * WINDOW:
        counter.count("accepted")
        window.advance(now)
        now += INTERVAL
        assert len(window.list_slices(now)) <= WINDOW / SLICE + 2
    assert sum_counts(window, now) == pytest.approx(WINDOW / INTERVAL, abs=2)
    for _ in range(int(WINDOW / INTERVAL) + 2):
        window.advance(now)
        now += INTERVAL
    assert window.list_slices(now) == []


def test_a_window_tells_labels_and_buckets_apart() -> None:
    histogram, window_of = Histogram("calls", "s", "Calls", "method"), {GET: GET, "Watch": None}
    window = Window(durations={QUERIES: (histogram, lambda key: window_of[str(key[0])])})
    for seconds in (0.0004, 0.0004, 0.3, 99.0):
        histogram.record(seconds, GET)
        histogram.record(seconds, "Watch")
    window.advance(0.0)
    (only,) = window.list_slices(0.0)
    assert only.durations == {QUERIES: {GET: {0: 2, SECONDS.index(0.5): 1, len(SECONDS): 1}}}


def test_a_stalled_loop_reports_old_measurements_under_no_false_time() -> None:
    counter = Counter("commands", "1", "Commands", "outcome")
    window = Window({COMMANDS: (counter, lambda key: str(key[0]))})
    counter.count("accepted")
    window.advance(0.0)
    window.advance(10 * WINDOW)
    assert window.list_slices(10 * WINDOW) == []


def test_rejected_commands_are_no_failures() -> None:
    found = figures(stored(1, commands(accepted=900, rejected=99, failed=1)))["command success rate"]
    assert found == Figure("command success rate", 99.9, 99.9, "%", True)
    worse = figures(stored(1, commands(accepted=900, rejected=98, failed=2)))["command success rate"]
    assert (worse.value, worse.good) == (99.8, False)


def test_the_measurements_of_all_processes_count_together() -> None:
    found = figures(stored(1, commands(accepted=1)), stored(2, commands(failed=1)))
    assert found["command success rate"].value == 50.0


@pytest.mark.parametrize(("age", "value"), [(0, 50.0), (WINDOW - 101, 50.0), (WINDOW - 99, 100.0)])
def test_what_a_killed_process_measured_leaves_the_window_in_time(age: float, value: float) -> None:
    killed = stored(age, commands(age=100.0, failed=1), commands(age=0.0, accepted=1))
    assert figures(killed)["command success rate"].value == value


def test_without_measurements_no_figure_is_bad() -> None:
    assert {(each.value, each.good) for each in figures().values()} == {(None, True)}


def test_a_report_of_the_future_counts_for_nothing() -> None:
    """PostgreSQL's clock was set back after a process was killed."""
    future = stored(-3_600, commands(failed=1))
    assert figures(future)["command success rate"].value is None
    assert not future.is_living


def test_the_query_time_is_that_of_the_methods_that_return_one_record() -> None:
    fast, slow = SECONDS.index(0.01), SECONDS.index(5.0)
    window = Slice(0.0, {}, {QUERIES: {GET: {fast: 99, slow: 1}, LIST: {slow: 1_000}}})
    found = figures(stored(1, window, kind="query_server"))["query response time"]
    assert (found.value, found.threshold, found.unit, found.good) == (10.0, 100.0, "ms", True)
    window.durations[QUERIES][GET][slow] = 2
    assert not figures(stored(1, window, kind="query_server"))["query response time"].good


def test_the_figures_of_projectors() -> None:
    window = Slice(0.0, {FAILED_EVENTS: {"acme.Paid": 2}}, {LAG: {"acme.Account": {len(SECONDS): 1}}})
    found = figures(stored(1, window, kind="projector"), max_failed_events=2, max_event_processing_lag=10)
    assert (found["failed events"].value, found["failed events"].good) == (2, True)
    assert (found["event processing lag"].value, found["event processing lag"].good) == (20.0, False)
    assert figures(stored(1, kind="projector"))["failed events"].value == 0


def test_staleness_is_that_of_the_latest_report_and_grows_while_there_is_none() -> None:
    old = stored(60, kind="query_server", staleness={"order": 0.2, "stock": 0.2})
    new = stored(1, kind="query_server", staleness={"order": 0.5})
    found = figures(old, new)["read model staleness"]
    assert found.value == pytest.approx(60.2 - OVERDUE)
    assert not found.good
    assert figures(new)["read model staleness"].value == pytest.approx(0.5)


def test_staleness_does_not_grow_until_the_next_report_is_overdue() -> None:
    """A healthy system that is idle has some 1.2 s; with the interval between reports it would look stale."""
    before_the_next = stored(INTERVAL + 0.1, kind="query_server", staleness={"order": 1.2})
    assert figures(before_the_next)["read model staleness"].good


def test_a_bad_figure_has_the_age_of_the_last_bad_measurement() -> None:
    slow = Slice(120.0, {}, {QUERIES: {GET: {SECONDS.index(0.25): 1}}})
    fast = Slice(0.0, {}, {QUERIES: {GET: {SECONDS.index(0.1): 1}, LIST: {len(SECONDS): 9}}})
    failed = (commands(age=60.0, failed=1), commands(age=20.0, failed=1), commands(accepted=9))
    found = figures(stored(3, *failed), stored(3, slow, fast, kind="query_server"))
    assert found["command success rate"].last_bad_age == 23.0
    assert found["query response time"].last_bad_age == 123.0
    good = figures(stored(3, commands(accepted=9_999, failed=1)))["command success rate"]
    assert (good.good, good.last_bad_age) == (True, None)


@pytest.mark.parametrize(
    ("buckets", "share", "value"),
    [
        ({}, 0.99, None),
        ({0: 1}, 0.99, 0.0005),
        ({6: 100}, 0.5, 0.0375),
        ({6: 99, 9: 1}, 0.99, 0.05),
        ({6: 98, 9: 2}, 0.99, 0.375),
        ({14: 1}, 0.99, 20.0),
    ],
)
def test_percentiles(buckets: Mapping[int, int], share: float, value: float | None) -> None:
    assert compute_percentile(CounterOf(buckets), share) == pytest.approx(value)


def test_a_report_of_another_release_that_cannot_be_read_is_one_of_an_unknown_process() -> None:
    found = StoredReport.parse("host:1", 1.0, '{"kind": 7}')
    assert (found.report.kind, found.is_living) == ("unknown", True)


async def test_a_store_that_does_not_answer_costs_its_own_reports_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("runtime.process_reports.health.READ_TIMEOUT", 0.05)

    async def hang() -> list[StoredReport]:
        await asyncio.Event().wait()
        return []

    async def read() -> list[StoredReport]:
        return [stored(1, kind="projector")]

    health = await Reports(Settings(), hang, read).read()
    assert [each.report.kind for each in health.living] == ["projector"]
    assert health.errors == {"PostgreSQL": "TimeoutError"}
    unknown = [each for each in health.figures if each.error]
    assert [(each.name, each.value, each.good) for each in unknown] == [("command success rate", None, False)]


async def test_without_any_report_all_figures_are_unknown() -> None:
    async def read() -> list[StoredReport]:
        return []

    health = Reports(Settings(), read, read).describe_failure("no answer for 3 s")
    assert [(each.error, each.good) for each in health.figures] == [("no answer for 3 s", False)] * 5
    assert all(each.good for each in (await Reports(Settings(), read, read).read()).figures)
