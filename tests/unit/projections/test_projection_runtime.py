"""Checkpoints, retry policy and retry schedule, without any server."""

import pytest

from projector.checkpoints import Checkpoints
from projector.records import Parked
from projector.retry_schedule import (
    MAX_CLOCK_OFFSET,
    MAX_CODES,
    RetryPolicy,
    RetrySchedule,
    compute_stale_since,
)
from tests.support.ledger.histories import recorded, voided

OOPS = ValueError("oops")
STREAM = "ledger.cheque.c-1"


class TestCheckpoints:
    def test_reading_starts_after_each_partitions_checkpoint(self) -> None:
        assert Checkpoints("e", {0: "e/7", 1: "e/3", 2: "e/1"}, [0, 1]).starts == {0: 8, 1: 4}

    def test_a_checkpoint_of_another_epoch_starts_at_the_beginning(self) -> None:
        assert Checkpoints("new", {0: "old/7", 1: "new/3"}, [0, 1]).starts == {0: 1, 1: 4}

    def test_the_given_partitions_advance(self) -> None:
        checkpoints = Checkpoints("e", {0: "e/7", 1: "e/3", 2: "old/9"}, [0, 1, 2])
        assert checkpoints.plan_advances({1: 5}) == {1: ("e/3", "e/5")}
        advances = checkpoints.plan_advances({0: 7, 1: 5, 2: 0})
        assert advances == {0: ("e/7", "e/7"), 1: ("e/3", "e/5"), 2: ("old/9", "e/0")}
        checkpoints.record_advances(advances)
        assert checkpoints.starts == {0: 8, 1: 6, 2: 1}
        assert checkpoints.plan_advances({2: 3}) == {2: ("e/0", "e/3")}


class TestRetryPolicy:
    def test_pauses_double_and_vary_by_half(self) -> None:
        retries, parked, now = RetryPolicy(attempts=9, first_pause=1.0), None, 0
        for attempt in range(1, 9):
            parked = retries.park(STREAM, 4, OOPS, parked, now)
            assert parked.next_attempt is not None
            assert 0.5 <= (parked.next_attempt - now) / (1000 * 2 ** (attempt - 1)) <= 1.5
            assert (parked.attempts, parked.since, parked.state) == (attempt, 0, "retrying")
            now = parked.next_attempt

    def test_after_the_last_attempt_the_aggregate_stays_parked(self) -> None:
        parked = None
        for now in range(6):
            assert parked is None or parked.state == "retrying"
            parked = RetryPolicy().park(STREAM, 4, OOPS, parked, now)
        assert parked == Parked(STREAM, 4, "ValueError: oops", 0, 6, None, "parked")

    def test_another_event_that_fails_gets_all_attempts(self) -> None:
        first = RetryPolicy().park(STREAM, 4, OOPS, None, 0)
        second = RetryPolicy().park(STREAM, 5, OOPS, first, 10)
        assert (second.attempts, second.since) == (1, 10)

    def test_long_errors_are_truncated(self) -> None:
        assert len(RetryPolicy().park(STREAM, 4, ValueError("x" * 10_000), None, 0).error) == 500

    def test_a_projector_with_other_code_tries_once_more(self) -> None:
        old, new = RetryPolicy(attempts=2, code="old"), RetryPolicy(attempts=2, code="new")
        parked = old.park(STREAM, 4, OOPS, old.park(STREAM, 4, OOPS, None, 0), 1)
        assert (parked.state, parked.tried_by) == ("parked", ("old",))
        assert not old.must_retry(parked)
        assert new.must_retry(parked)
        again = new.park(STREAM, 4, OOPS, parked, 2)
        assert (again.state, again.tried_by) == ("parked", ("old", "new"))
        assert not old.must_retry(again)
        assert not new.must_retry(again)

    def test_two_releases_in_turn_do_not_try_for_ever(self) -> None:
        parked = None
        for number in range(20):
            parked = RetryPolicy(code=f"code {number}").park(STREAM, 4, OOPS, parked, 0)
        assert parked is not None
        assert len(parked.tried_by) == MAX_CODES

    def test_a_view_is_stale_since_the_first_event_that_it_lacks(self) -> None:
        first = RetryPolicy().park(STREAM, 4, OOPS, None, 50, stale_since=10)
        assert RetryPolicy().park(STREAM, 4, OOPS, first, 90, stale_since=70).stale_since == 10
        assert RetryPolicy().park(STREAM, 5, OOPS, first, 90, stale_since=70).stale_since == 70
        assert RetryPolicy().park(STREAM, 5, OOPS, first, 90).stale_since == 10


def test_an_event_dates_the_staleness_unless_it_is_from_the_future() -> None:
    event = recorded(1, voided("c-1"))
    at = int(event.recorded_at.timestamp() * 1000)
    assert compute_stale_since(event, at + 60_000) == at - MAX_CLOCK_OFFSET
    assert compute_stale_since(event, at - 60_000) == 0  # a wrong clock has recorded it
    assert compute_stale_since(None, at) == 0


class TestRetrySchedule:
    @pytest.fixture
    def schedule(self) -> RetrySchedule:
        schedule = RetrySchedule()
        for n in (4, 2, 0, 3, 1):
            schedule.add(f"c-{n}", Parked(STREAM, 1, "", 0, 1, n, "retrying"))
        return schedule

    def test_due_aggregates_are_taken_once_the_longest_due_first(self, schedule: RetrySchedule) -> None:
        assert [view_id for view_id, _ in schedule.take_due(3, 2)] == ["c-0", "c-1"]
        assert [view_id for view_id, _ in schedule.take_due(3, 10)] == ["c-2", "c-3"]
        assert schedule.take_due(3, 10) == []
        assert schedule.seconds_until_due(3) == 0.001

    def test_an_active_aggregate_is_not_taken_again(self, schedule: RetrySchedule) -> None:
        assert [view_id for view_id, _ in schedule.take_due(1, 10, {"c-0"})] == ["c-1"]
        assert schedule.seconds_until_due(0, {"c-0"}) == 0.002

    def test_an_aggregate_without_attempts_left_is_not_due(self, schedule: RetrySchedule) -> None:
        schedule.add("c-1", Parked(STREAM, 1, "", 0, 6, None, "parked"))
        assert [view_id for view_id, _ in schedule.take_due(1, 10)] == ["c-0"]
