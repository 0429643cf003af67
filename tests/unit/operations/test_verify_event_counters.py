"""When counters that only grow are in line with the events that were read between two looks at them."""

import pytest

from operations.verify.checks.event_counters import Look, compare

PLACE = ("event_counters:x:2:{day/2026-01-01}", "count/KIND_SENT/EUR")


def look(count: int) -> Look:
    return Look((b"life", b"fill"), {PLACE: count} if count else {})


def found(before: int, heard: int, after: int) -> list[str]:
    return [problem.text for problem in compare(look(before), look(after), {PLACE: heard})]


@pytest.mark.parametrize(
    ("before", "heard", "after"), [(3, 3, 3), (3, 3, 5), (3, 4, 5), (3, 5, 5), (0, 2, 2)]
)
def test_what_was_heard_lies_between_two_looks(before: int, heard: int, after: int) -> None:
    assert found(before, heard, after) == []


@pytest.mark.parametrize(
    ("before", "heard", "after", "is_"),
    [(3, 2, 3, "3"), (3, 2, 9, "9"), (3, 6, 5, "5"), (0, 1, 0, "not there")],
)
def test_what_does_not_is_drift(before: int, heard: int, after: int, is_: str) -> None:
    assert found(before, heard, after) == [f"count/KIND_SENT/EUR is {is_}, the events come to {heard}"]
