"""Admission, on a clock that the test advances: who is refused while commits are slow, and until when."""

import pytest

from command_server.kernel.admission import MAX_QUEUE_TIME, Admission
from command_server.kernel.outcomes import Overloaded

SLOW, FAST = 2.0, 0.01


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Writer:
    """Commits of given durations, and commands that arrive during the next one."""

    def __init__(self, *durations: float) -> None:
        self.clock = Clock()
        self.admission = Admission(self.clock)
        for duration in durations:
            with self.admission.measure_commit():
                self.clock.now += duration

    def refused(
        self, timeout: float | None = None, batches_ahead: int = 0, waited: float | None = None
    ) -> float | None:
        """Return the retry hint of a command that arrives now; None if it is admitted."""
        deadline = None if timeout is None else self.clock.now + timeout
        oldest = None if waited is None else self.clock.now - waited
        try:
            self.admission.check(self.clock.now, deadline, batches_ahead, oldest)
        except Overloaded as error:
            return error.retry_after
        return None


def test_an_idle_writer_admits_every_command() -> None:
    assert Writer(SLOW, SLOW).refused(timeout=0.1) is None


@pytest.mark.parametrize("timeout", [None, 60.0])
def test_a_command_that_would_wait_too_long_is_refused_until_half_of_the_limit_is_left(
    timeout: float | None,
) -> None:
    writer = Writer(SLOW, SLOW)
    with writer.admission.measure_commit():
        hint = writer.refused(timeout)
        assert hint is not None
        assert hint == pytest.approx(SLOW - MAX_QUEUE_TIME / 2)
        writer.clock.now += hint
        assert writer.refused(timeout) is None


def test_a_command_whose_answer_would_come_after_its_deadline_is_refused() -> None:
    writer = Writer(SLOW, SLOW)
    with writer.admission.measure_commit():
        writer.clock.now += SLOW - 0.5
        assert writer.refused(timeout=2.6) is None
        assert writer.refused(timeout=2.4) == SLOW


def test_full_batches_that_are_queued_count() -> None:
    writer = Writer(0.3, 0.3)
    with writer.admission.measure_commit():
        assert writer.refused(batches_ahead=2) is None
        assert writer.refused(batches_ahead=3) == pytest.approx(1.2 - MAX_QUEUE_TIME / 2)


def test_one_slow_commit_among_fast_ones_does_not_count() -> None:
    writer = Writer(FAST, SLOW)
    with writer.admission.measure_commit():
        assert writer.refused(timeout=1.0) is None


def test_the_first_fast_commit_ends_the_refusals() -> None:
    writer = Writer(SLOW, SLOW, FAST)
    with writer.admission.measure_commit():
        assert writer.refused(timeout=1.0) is None


def test_a_commit_that_takes_longer_than_the_last_ones_counts_with_what_it_has_taken() -> None:
    writer = Writer(FAST, FAST)
    with writer.admission.measure_commit():
        assert writer.refused(timeout=1.0) is None
        writer.clock.now += 1.5
        assert writer.refused(timeout=1.0) == 1.5
        assert writer.refused(waited=MAX_QUEUE_TIME + 0.1) == 1.5


def test_a_commit_that_fails_counts_too() -> None:
    writer = Writer()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), writer.admission.measure_commit():
            writer.clock.now += SLOW
            raise ZeroDivisionError
    assert writer.admission.expect_commit_time() == SLOW
