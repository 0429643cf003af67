"""Lines about long work."""

from collections.abc import Iterator

from operations.progress import Progress


def run(times: Iterator[float], *steps: tuple[int, int]) -> list[str]:
    lines: list[str] = []
    progress = Progress("events", lines.append, lambda: next(times))
    for step in steps:
        progress.report(*step)
    return lines


def test_a_line_has_percent_rate_and_the_time_that_is_left() -> None:
    lines = run(iter([0.0, 0.0, 10.0]), (1_000, 10_000), (3_000, 10_000))
    assert lines == ["30 %, 3,000 of 10,000 events, 200 a second, 35 s left"]


def test_lines_come_every_five_seconds_and_short_work_prints_none() -> None:
    assert run(iter([0.0, 1.0, 4.9]), (0, 10), (10, 10)) == []
    lines = run(iter([0.0, 5.0, 9.0, 10.0]), (1, 10), (2, 10), (3, 10))
    assert [line.split()[0] for line in lines] == ["10", "30"]


def test_work_that_does_not_go_on_has_no_end_in_sight() -> None:
    lines = run(iter([0.0, 0.0, 6.0]), (5, 10), (5, 10))
    assert lines == ["50 %, 5 of 10 events, 0 a second, no end in sight"]


def test_a_total_that_was_outgrown_or_is_empty_is_done() -> None:
    assert run(iter([0.0, 5.0]), (12, 10))[0].startswith("100 %, 12 of 12")
    assert run(iter([0.0, 5.0]), (0, 0))[0].startswith("100 %, 0 of 0")
