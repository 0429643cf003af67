"""The time in which a loop stands still, without the time in which nothing runs."""

from itertools import pairwise

from runtime.process.watchdog import INTERVAL, StallClock


def test_the_time_without_a_turn_adds_up_until_the_loop_turns() -> None:
    clock = StallClock(100.0)
    assert [clock.observe(100.0 + n, turned=False) for n in (1, 2, 3)] == [1, 2, 3]
    assert clock.observe(104.0, turned=True) == 0
    assert clock.observe(105.0, turned=False) == 1


def test_a_suspension_of_any_length_counts_like_two_looks() -> None:
    clock = StallClock(100.0)
    assert clock.observe(101.0, turned=True) == 0
    assert clock.observe(101.0 + 86_400, turned=False) == 2 * INTERVAL
    assert clock.observe(102.0 + 86_400, turned=True) == 0


def test_looks_that_are_late_on_a_busy_machine_count_less_than_the_time() -> None:
    times = [0.0, 1.0, 6.0, 7.0, 12.0]
    clock = StallClock(times[0])
    stalled = [clock.observe(time, turned=False) for time in times[1:]]
    assert stalled == [1, 3, 4, 6]
    assert all(later - earlier <= 2 * INTERVAL for earlier, later in pairwise(stalled))
