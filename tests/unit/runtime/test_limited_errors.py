"""Errors that others may cause at any rate take a line a second, and none is lost from the count."""

import pytest

from runtime.process import logs
from runtime.process.logs import limited_errors
from tests.support.harness.log_lines import own_lines


def test_errors_within_a_second_are_counted_in_the_next_line(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(limited_errors, "monotonic", lambda: now)
    with own_lines() as lines:
        errors = logs.LimitedErrors(logs.get_logger("x"), "View cannot be read", projection="p")
        for number in range(1_000):
            errors.report(recordId=f"v-{number}")
        now += limited_errors.INTERVAL
        errors.report(recordId="last")
    first, second = lines.all()
    assert (first["message"], first["level"], first["projection"]) == ("View cannot be read", "error", "p")
    assert (first["recordId"], "omitted" in first) == ("v-0", False)
    assert (second["recordId"], second["omitted"]) == ("last", 999)
