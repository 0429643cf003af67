"""The retry budget bounds the retries of a connection, whatever its calls do."""

import pytest
from diptych_client import RetryBudget
from hypothesis import given
from hypothesis import strategies as st


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@given(
    steps=st.lists(
        st.one_of(st.just("call"), st.just("retry"), st.floats(0, 5, allow_nan=False)), max_size=200
    ),
    within=st.floats(0, 10),
)
def test_retries_never_exceed_capacity_rate_and_ratio(steps: list[str | float], within: float) -> None:
    clock = Clock()
    budget = RetryBudget(rate=2, ratio=0.5, capacity=5, clock=clock)
    calls, retries_at = 0, []
    for step in steps:
        if step == "call":
            budget.record_call()
            calls += 1
        elif step == "retry":
            wait = budget.reserve(within)
            if wait is not None:
                assert 0 <= wait <= within
                retries_at.append(clock.now + wait)
        else:
            clock.now += float(step)
    for number, moment in enumerate(sorted(retries_at), start=1):
        assert number <= 5 + 2 * moment + 0.5 * calls + 1e-6


def test_retries_wait_for_their_turn_while_the_bucket_is_empty() -> None:
    clock = Clock()
    budget = RetryBudget(rate=10, ratio=0, capacity=2, clock=clock)
    assert [budget.reserve(1) for _ in range(4)] == [0, 0, pytest.approx(0.1), pytest.approx(0.2)]
    clock.now = 10
    assert [budget.reserve(1) for _ in range(2)] == [0, 0], "the bucket is full again, and not fuller"


def test_a_retry_that_would_come_too_late_takes_nothing() -> None:
    budget = RetryBudget(rate=1, ratio=0, capacity=1, clock=Clock())
    assert budget.reserve(0) == 0
    assert budget.reserve(0.5) is None
    assert budget.reserve(1) == 1


@pytest.mark.parametrize(("rate", "ratio", "capacity"), [(0, 0, 1), (1, -1, 1), (1, 0, 0)])
def test_an_argument_out_of_range_is_rejected(rate: float, ratio: float, capacity: float) -> None:
    with pytest.raises(ValueError, match="RetryBudget"):
        RetryBudget(rate, ratio, capacity)
