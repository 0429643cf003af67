"""An error that repeats is logged once, and its end once."""

from runtime.process import logs
from tests.support.harness.log_lines import own_lines


def test_an_error_is_logged_once_while_it_repeats_and_again_after_a_success() -> None:
    with own_lines() as lines:
        failures = logs.RepeatedErrors(logs.get_logger("x"), "Poll failed", target="t")
        failures.reset()
        for port in (51_000, 51_001, 51_002):
            failures.report(OSError(f"refused at port {port}, object at 0x7f{port:x}"))
            failures.report(ValueError("other"))
        failures.reset()
        failures.reset()
        failures.report("other")
    first, second, recovered, again = lines.all()
    assert (first["message"], first["level"], first["target"]) == ("Poll failed", "warning", "t")
    assert first["error"] == "OSError: refused at port 51000, object at 0x7fc738"
    assert second["error"] == "ValueError: other"
    assert (recovered["message"], recovered["after"], recovered["failures"]) == (
        "Recovered",
        "Poll failed",
        6,
    )
    assert again["error"] == "other"


def test_errors_that_are_all_different_have_a_bound() -> None:
    with own_lines() as lines:
        failures = logs.RepeatedErrors(logs.get_logger("x"), "Poll failed")
        for length in range(1_000):
            failures.report("x" * length)
    assert len(lines.all()) == 16


def test_a_group_is_described_by_its_errors() -> None:
    with own_lines() as lines:
        failures = logs.RepeatedErrors(logs.get_logger("x"), "Poll failed")
        failures.report(ExceptionGroup("g", [ValueError("a"), ExceptionGroup("h", [OSError("b")])]))
    (line,) = lines.all()
    assert line["error"] == "ValueError: a; OSError: b"
