"""Admission, on a clock that the test advances: who is refused while commits are slow, and until when."""

import pytest

from command_server.kernel.admission import (
    BATCHING_RATIO,
    HINT_RATIO,
    MAX_QUEUE_TIME,
    MAX_TURN_TIME,
    PROBE_TIME,
    UNKNOWN_WAIT,
    Admission,
)
from command_server.kernel.outcomes import Overloaded
from command_server.kernel.ports import StoreLocked

SLOW, FAST = 4.0, 0.01
TURN = SLOW * (1 + BATCHING_RATIO)
"""Seconds from the beginning of a slow commit to that of the next one."""


def hint_of(wait: float, max_wait: float = MAX_TURN_TIME) -> object:
    return pytest.approx(wait - HINT_RATIO * max_wait)


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
def test_a_command_that_would_wait_too_long_is_refused_until_most_of_the_limit_is_left(
    timeout: float | None,
) -> None:
    writer = Writer(SLOW, SLOW)
    with writer.admission.measure_commit():
        hint = writer.refused(timeout)
        assert hint is not None
        assert hint == hint_of(TURN)
        writer.clock.now += hint
        assert writer.refused(timeout) is None


def test_a_command_whose_commit_would_begin_after_its_deadline_is_refused() -> None:
    writer = Writer(SLOW, SLOW)
    with writer.admission.measure_commit():
        writer.clock.now += TURN - 0.5
        assert writer.refused(timeout=0.6) is None
        hint = writer.refused(timeout=0.4)
        assert hint is not None
        assert hint == hint_of(0.5, 0.4)
        writer.clock.now += hint
        assert writer.refused(timeout=0.4) is None


@pytest.mark.parametrize("timeout", [None, 0.1, 1.0])
def test_while_no_commit_runs_a_full_batch_is_admitted(timeout: float | None) -> None:
    writer = Writer(SLOW, SLOW)
    assert writer.refused(timeout, waited=0.01) is None
    assert writer.refused(timeout, batches_ahead=1, waited=0.01) is not None


def test_a_commit_after_an_idle_time_is_a_probe() -> None:
    writer = Writer(SLOW, SLOW)
    writer.admission.mark_idle()
    with writer.admission.measure_commit():
        arrived_at = writer.clock.now
        assert writer.refused(timeout=1.0, waited=0.0) is None
        writer.admission.recheck(arrived_at, arrived_at + 1.0)
        writer.clock.now += PROBE_TIME + 0.01
        assert writer.refused() is not None
        with pytest.raises(Overloaded) as refused:
            writer.admission.recheck(arrived_at, arrived_at + 1.0)
        assert refused.value.retry_after == hint_of(TURN - PROBE_TIME - 0.01, 1.0)


def test_only_slow_commits_are_preceded_by_a_pause() -> None:
    assert Writer(FAST, FAST).admission.compute_batching_pause() == 0
    assert Writer(SLOW, FAST).admission.compute_batching_pause() == 0
    assert Writer(SLOW, SLOW).admission.compute_batching_pause() == pytest.approx(TURN - SLOW)


def test_a_command_that_was_admitted_stays_queued_while_the_estimate_holds() -> None:
    writer = Writer(SLOW, SLOW)
    with writer.admission.measure_commit():
        writer.clock.now += TURN - MAX_TURN_TIME + 0.001
        arrived_at = writer.clock.now
        assert writer.refused() is None
        for _ in range(20):
            writer.clock.now += MAX_TURN_TIME / 10  # the commit ends later than expected
            writer.admission.recheck(arrived_at, None)


def test_the_caller_of_a_command_in_a_commit_is_asked_back_shortly_before_its_end() -> None:
    writer = Writer(SLOW, SLOW)
    with writer.admission.measure_commit():
        arrived_at = writer.clock.now
        writer.clock.now += 1.0
        hint = writer.admission.compute_pending_hint(arrived_at, arrived_at + 1.0)
        writer.clock.now += hint
        assert writer.refused(timeout=1.0) is None
        assert hint == hint_of(TURN - 1.0, 1.0)
        writer.clock.now += SLOW
        assert writer.admission.compute_pending_hint(arrived_at, arrived_at + 1.0) == UNKNOWN_WAIT


def test_full_batches_that_are_queued_count() -> None:
    writer = Writer(0.3, 0.3)
    with writer.admission.measure_commit():
        assert writer.refused(batches_ahead=2) is None
        assert writer.refused(batches_ahead=3) == hint_of(1.2, MAX_QUEUE_TIME)


def test_one_slow_commit_among_fast_ones_does_not_count() -> None:
    writer = Writer(FAST, SLOW)
    with writer.admission.measure_commit():
        assert writer.refused(timeout=1.0) is None


def test_the_first_fast_commit_ends_the_refusals() -> None:
    writer = Writer(SLOW, SLOW, FAST)
    with writer.admission.measure_commit():
        assert writer.refused(timeout=1.0) is None


def test_while_a_commit_takes_longer_than_expected_the_oldest_command_counts() -> None:
    writer = Writer(FAST, FAST)
    with writer.admission.measure_commit():
        assert writer.refused(timeout=1.0) is None
        writer.clock.now += 1.5
        assert writer.refused(waited=MAX_QUEUE_TIME - 0.1) is None
        assert writer.refused(waited=MAX_QUEUE_TIME + 0.1) == UNKNOWN_WAIT


def test_a_commit_that_fails_counts_too() -> None:
    writer = Writer(SLOW, SLOW)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), writer.admission.measure_commit():
            writer.clock.now += SLOW
            raise ZeroDivisionError
    with writer.admission.measure_commit():
        assert writer.refused() == hint_of(TURN, MAX_QUEUE_TIME)


def test_a_commit_that_conflicts_with_others_does_not_count() -> None:
    writer = Writer(SLOW, SLOW)
    with pytest.raises(StoreLocked), writer.admission.measure_commit():
        writer.clock.now += FAST
        raise StoreLocked
    with writer.admission.measure_commit():
        assert writer.refused() is not None


def test_a_commit_that_writes_nothing_does_not_count() -> None:
    writer = Writer(SLOW, SLOW)
    with writer.admission.measure_commit():
        writer.admission.ignore_commit()
        writer.clock.now += FAST
    with writer.admission.measure_commit():
        assert writer.refused() is not None
