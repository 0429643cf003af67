"""The pace of builds, by a clock that the test sets."""

import pytest

from contracts.generations import GenerationRecord
from projector import pace
from projector.pace import CHECK_INTERVAL, Pace


class Clock:
    now = 100.0

    def rest(self, paced: Pace, applied: int, share: float = 1.0) -> float:
        """Keep the pace after this many events; return the seconds that it took."""
        began = self.now
        while seconds := paced.compute_rest(applied, share):
            assert seconds <= CHECK_INTERVAL
            self.now += seconds
            applied = 0
        return self.now - began


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace, "monotonic", lambda: clock.now)
    return clock


def test_without_a_rate_nothing_rests(clock: Clock) -> None:
    assert clock.rest(Pace(), 1_000_000) == 0


@pytest.mark.parametrize(("share", "seconds"), [(1.0, 10), (0.5, 20)])
def test_each_process_takes_its_share_of_the_rate(clock: Clock, share: float, seconds: float) -> None:
    paced = Pace()
    paced.set(GenerationRecord(0, rate=100))
    for _ in range(10):
        clock.rest(paced, 100, share)
    assert clock.now - 100 == pytest.approx(seconds)


def test_time_that_passed_before_is_not_made_up_for(clock: Clock) -> None:
    paced = Pace()
    paced.set(GenerationRecord(0, rate=100))
    clock.now += 60
    assert clock.rest(paced, 100) == pytest.approx(1)


@pytest.mark.parametrize("lacks_memory", [False, True])
def test_a_pause_lasts_until_it_ends(clock: Clock, lacks_memory: bool) -> None:
    paced = Pace()
    paced.set(GenerationRecord(0, paused="" if lacks_memory else "by ops"))
    paced.lacks_memory = lacks_memory
    assert paced.compute_rest(0, 1.0) == CHECK_INTERVAL
    paced.set(None)
    paced.lacks_memory = False
    assert paced.compute_rest(0, 1.0) == 0


def test_a_changed_rate_does_not_wait_for_the_earlier_one(clock: Clock) -> None:
    paced = Pace()
    paced.set(GenerationRecord(0, rate=0.001))
    assert paced.compute_rest(1_000_000, 1.0) == CHECK_INTERVAL
    paced.set(GenerationRecord(0, rate=100))
    assert clock.rest(paced, 100) == pytest.approx(1)
    paced.set(GenerationRecord(0, rate=0.001))
    paced.compute_rest(1_000_000, 1.0)
    paced.set(None)
    assert paced.compute_rest(0, 1.0) == 0


@pytest.mark.parametrize("rate", [5e-324, 1e308])
def test_any_rate_that_a_request_may_have_is_kept(clock: Clock, rate: float) -> None:
    paced = Pace()
    paced.set(GenerationRecord(0, rate=rate))
    assert paced.compute_rest(100, 1 / 128) == (CHECK_INTERVAL if rate < 1 else 0)
