"""Event counters that were read before and after the views, against the contributions of the events."""

import pytest

from operations.verify.checks.event_counters import CounterSnapshot, compare

COUNTER = ("event_counters:x:2:{day/2026-01-01}", "count/KIND_SENT/EUR")


def snapshot(count: int) -> CounterSnapshot:
    return CounterSnapshot((b"incarnation", b"build"), {COUNTER: count} if count else {})


def list_findings(before: int, sum_: int, after: int) -> list[str]:
    problems = compare(snapshot(before), snapshot(after), {COUNTER: sum_})
    return [problem.text for problem in problems]


@pytest.mark.parametrize(("before", "sum_", "after"), [(3, 3, 3), (3, 3, 5), (3, 4, 5), (3, 5, 5), (0, 2, 2)])
def test_a_sum_between_the_two_counts_is_right(before: int, sum_: int, after: int) -> None:
    assert list_findings(before, sum_, after) == []


@pytest.mark.parametrize(
    ("before", "sum_", "after", "value"),
    [(3, 2, 3, "3"), (3, 2, 9, "9"), (3, 6, 5, "5"), (0, 1, 0, "missing")],
)
def test_a_sum_outside_the_two_counts_is_drift(before: int, sum_: int, after: int, value: str) -> None:
    text = f"count/KIND_SENT/EUR is {value}, the events contribute {sum_}"
    assert list_findings(before, sum_, after) == [text]
