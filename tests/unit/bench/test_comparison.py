"""Ratios, and what happens to a run in which something fails."""

from collections.abc import Awaitable, Callable

import pytest

from bench.comparison import (
    ABSOLUTE,
    Comparison,
    Results,
    Sample,
    Subject,
    interleave,
    repeat,
    select_cpu,
    select_percentile,
)
from bench.failures import Failures
from bench.report import describe, format_table
from bench.table import TABLE

Run = Callable[[], Awaitable[Sample]]


def make_subject(name: str, *outcomes: Sample | Exception) -> Subject:
    """Return a subject with these outcomes, one per run."""
    remaining = iter(outcomes)

    async def run() -> Sample:
        outcome = next(remaining)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return Subject(name, run)


def test_a_ratio_is_of_samples_of_one_round() -> None:
    results = {"a": [Sample(10.0), Sample(30.0)], "b": [Sample(5.0), Sample(10.0)]}
    assert Comparison("a", "b").ratios(results) == [2.0, 3.0]
    assert Comparison("a", "b", factor=50).ratios(results) == [100.0, 150.0]


def test_a_ratio_of_latencies_may_have_another_percentile_below() -> None:
    results = {"a": [Sample(1.0, {"50": 8.0, "99": 80.0})], "b": [Sample(1.0, {"50": 2.0, "99": 4.0})]}
    p50, p99 = select_percentile("50"), select_percentile("99")
    assert Comparison("a", "b", metric=p99).ratios(results) == [20.0]
    assert Comparison("a", "b", metric=p99, against_metric=p50).ratios(results) == [40.0]


def test_a_ratio_of_cpu_is_of_all_processes() -> None:
    results = {"a": [Sample(1.0, cpu={"x": 60.0, "y": 40.0})], "b": [Sample(1.0, cpu={"z": 20.0})]}
    assert Comparison("a", "b", metric=select_cpu).ratios(results) == [5.0]
    assert Comparison("a", ABSOLUTE, metric=select_cpu, factor=0.1).ratios(results) == [10.0]


def test_there_is_no_ratio_to_what_was_not_measured() -> None:
    results = {"a": [Sample(10.0)], "b": [Sample(0.0)], "c": list[Sample]()}
    assert [Comparison("a", name).ratios(results) for name in ("b", "c", "d")] == [[], [], []]
    assert Comparison("a", "a", metric=select_cpu).ratios(results) == []


@pytest.mark.parametrize(
    ("at_most", "ratio", "verdict"),
    [
        (False, 0.8, "reached"),
        (False, 0.79, "falls short"),
        (True, 0.8, "reached"),
        (True, 0.81, "falls short"),
    ],
)
def test_a_goal_is_a_least_or_a_most(at_most: bool, ratio: float, verdict: str) -> None:
    assert Comparison("a", "b", 0.8, at_most=at_most).verdict(ratio) == verdict


def test_the_table_shows_the_median_its_bounds_and_the_cpu_of_both() -> None:
    results = {
        "a": [Sample(rate, cpu={"x": 900.0, "y": 100.0}) for rate in (1.0, 5.0, 3.0)],
        "b": [Sample(1.0, cpu={"z": 250.0})] * 3,
    }
    *_, line = format_table(describe([Comparison("a", "b", 2, 4), Comparison("a", "c")], results))
    assert line == "| a | b | higher | 3.00 (1.00 to 5.00) | 1,000 / 250 | 2 | 4 | reached |"


async def test_warm_up_rounds_leave_no_samples() -> None:
    samples = [Sample(float(number)) for number in range(3)]
    results = await interleave([make_subject("a", *samples)], rounds=2, warm_up=1)
    assert results == {"a": samples[1:]}


async def test_a_subject_that_fails_has_no_samples_and_the_others_go_on() -> None:
    failures, one = Failures(), Sample(1.0)

    async def keep(name: str, error: Exception) -> None:
        failures.add(name, error)

    subjects = [make_subject("a", one, RuntimeError("lost")), make_subject("b", one, one, one)]
    assert await interleave(subjects, 3, 0, keep) == {"b": [one] * 3}
    assert failures == ["a: RuntimeError: lost"]


async def test_a_failure_ends_a_run_that_keeps_none() -> None:
    with pytest.raises(RuntimeError, match="lost"):
        await interleave([make_subject("a", RuntimeError("lost"))], 1, 0)


async def test_rounds_that_measure_all_their_subjects() -> None:
    rounds = iter([{"a": Sample(1.0)}, {"a": Sample(2.0)}])

    async def measure() -> dict[str, Sample]:
        return next(rounds)

    assert await repeat(measure, 2) == {"a": [Sample(1.0), Sample(2.0)]}


async def test_a_group_that_fails_is_kept_and_has_no_results(capsys: pytest.CaptureFixture[str]) -> None:
    failures = Failures()

    async def fail() -> Results:
        raise ValueError("of no use")

    async def succeed() -> Results:
        return {"a": [Sample(1.0)]}

    assert await failures.collect("feed", fail) == {}
    assert await failures.collect("lag", succeed) == {"a": [Sample(1.0)]}
    assert failures == ["feed: ValueError: of no use"]
    assert "FAILED: feed: ValueError: of no use" in capsys.readouterr().out


def test_each_line_of_the_table_is_there_once() -> None:
    lines = [(line.title, line.against) for line in TABLE]
    assert len(set(lines)) == len(lines)
