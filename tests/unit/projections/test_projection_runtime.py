"""What decides when the projector reads, and when it tries again; without any server."""

import pytest

from projector.checkpoints import Checkpoints
from projector.records import Parked
from projector.retry_schedule import RetryPolicy, RetrySchedule

OOPS = ValueError("oops")
STREAM = "ordering.order.o-1"


class TestProgress:
    def test_goes_on_behind_each_partitions_place(self) -> None:
        assert Checkpoints("e", {0: "e/7", 1: "e/3", 2: "e/1"}, [0, 1]).starts == {0: 8, 1: 4}

    def test_means_nothing_in_another_epoch(self) -> None:
        assert Checkpoints("new", {0: "old/7", 1: "new/3"}, [0, 1]).starts == {0: 1, 1: 4}

    def test_moves_the_partitions_that_are_named_or_all(self) -> None:
        checkpoints = Checkpoints("e", {0: "e/7", 1: "e/3", 2: "old/9"}, [0, 1, 2])
        assert checkpoints.advances({1: 5}) == {1: ("e/3", "e/5")}
        advances = checkpoints.advances({1: 5}, also=[0, 2])
        assert advances == {0: ("e/7", "e/7"), 1: ("e/3", "e/5"), 2: ("old/9", "e/0")}
        checkpoints.moved(advances)
        assert checkpoints.starts == {0: 8, 1: 6, 2: 1}
        assert checkpoints.advances({}) == {0: ("e/7", "e/7"), 1: ("e/5", "e/5"), 2: ("e/0", "e/0")}


class TestRetries:
    def test_pauses_double_and_vary_by_half(self) -> None:
        retries, parked, now = RetryPolicy(attempts=9, first_pause=1.0), None, 0
        for attempt in range(1, 9):
            parked = retries.park(STREAM, 4, OOPS, parked, now)
            assert parked.next_attempt is not None
            assert 0.5 <= (parked.next_attempt - now) / (1000 * 2 ** (attempt - 1)) <= 1.5
            assert (parked.attempts, parked.since, parked.state) == (attempt, 0, "retrying")
            now = parked.next_attempt

    def test_after_the_last_attempt_only_an_operator_helps(self) -> None:
        parked = None
        for now in range(6):
            assert parked is None or parked.state == "retrying"
            parked = RetryPolicy().park(STREAM, 4, OOPS, parked, now)
        assert parked == Parked(STREAM, 4, "ValueError: oops", 0, 6, None, "parked")

    def test_another_event_that_fails_has_all_its_attempts(self) -> None:
        first = RetryPolicy().park(STREAM, 4, OOPS, None, 0)
        second = RetryPolicy().park(STREAM, 5, OOPS, first, 10)
        assert (second.attempts, second.since) == (1, 10)

    def test_long_errors_are_cut(self) -> None:
        assert len(RetryPolicy().park(STREAM, 4, ValueError("x" * 10_000), None, 0).error) == 500


class TestTheSchedule:
    @pytest.fixture
    def schedule(self) -> RetrySchedule:
        schedule = RetrySchedule()
        schedule.reset({f"o-{n}": Parked(STREAM, 1, "", 0, 1, n, "retrying") for n in range(5)})
        return schedule

    def test_names_what_is_due_and_no_more_than_asked_for(self, schedule: RetrySchedule) -> None:
        assert [view_id for view_id, _ in schedule.due(3, 10)] == ["o-0", "o-1", "o-2", "o-3"]
        assert len(schedule.due(3, 2)) == 2

    def test_leaves_out_what_only_an_operator_can_help(self, schedule: RetrySchedule) -> None:
        schedule.remember("o-1", Parked(STREAM, 1, "", 0, 6, None, "parked"))
        schedule.forget("o-2")
        assert [view_id for view_id, _ in schedule.due(3, 10)] == ["o-0", "o-3"]
