"""The schedule of a call's attempts: pauses, deadline, budget, expired tokens, outcome."""

from math import inf

import grpc
import pytest
from diptych_client import OutcomeUnknown, Rejection, RetryBudget
from diptych_client.retry_schedule import DECIDED, RETRIED, RetrySchedule
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.client.test_retry_budget import Clock

CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
UNAVAILABLE = Rejection(grpc.StatusCode.UNAVAILABLE)
OVERLOADED = Rejection(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
EXPIRED = Rejection(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED")
DENIED = Rejection(grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")


@given(st.lists(st.none() | st.floats(0, 60), max_size=60))
def test_a_pause_doubles_up_to_its_maximum_and_never_precedes_retry_after(hints: list[float | None]) -> None:
    schedule = RetrySchedule(max_pause=2)
    for number, hint in enumerate(hints):
        pause = schedule.pause_after(Rejection(grpc.StatusCode.UNAVAILABLE, retry_after=hint))
        bound = min(2, 0.05 * 2**number)
        assert bound / 2 <= pause - (hint or 0) + 1e-9
        assert pause - (hint or 0) <= bound + 1e-9


def test_pauses_start_over_after_a_success() -> None:
    schedule = RetrySchedule()
    for _ in range(10):
        schedule.next_pause()
    schedule.reset_pauses()
    assert schedule.next_pause() <= 0.05


@pytest.mark.parametrize("code", CODES)
def test_only_errors_without_an_answer_are_followed_by_another_attempt(code: grpc.StatusCode) -> None:
    rejection = Rejection(code, "SOME_REASON")
    if code in RETRIED:
        assert RetrySchedule().pause_after(rejection) < 1
    else:
        with pytest.raises(Rejection) as raised:
            RetrySchedule().pause_after(rejection)
        assert raised.value is rejection


def test_an_attempt_ends_with_the_deadline_and_a_pause_never_outlasts_it() -> None:
    clock = Clock()
    schedule = RetrySchedule(timeout=7, clock=clock)
    assert schedule.start_attempt("") == 5
    clock.now = 4
    assert schedule.start_attempt("") == 3
    with pytest.raises(Rejection):
        schedule.pause_after(Rejection(grpc.StatusCode.UNAVAILABLE, retry_after=3))
    assert schedule.pause_after(Rejection(grpc.StatusCode.UNAVAILABLE, retry_after=2)) < 3
    clock.now = 8
    assert schedule.start_attempt("") == 0


def test_a_retry_waits_for_the_budget_or_ends_the_call() -> None:
    budget = RetryBudget(rate=1, ratio=0, capacity=1, clock=Clock())
    assert RetrySchedule(5, budget, clock=Clock()).pause_after(UNAVAILABLE) < 0.1
    assert RetrySchedule(5, budget, clock=Clock()).pause_after(UNAVAILABLE) == 1
    with pytest.raises(Rejection):
        RetrySchedule(1.5, budget, clock=Clock()).pause_after(UNAVAILABLE)


def test_a_token_that_expired_is_replaced_but_never_repeated() -> None:
    schedule = RetrySchedule(inf)
    schedule.start_attempt("first")
    schedule.pause_after(EXPIRED)
    schedule.start_attempt("second")
    schedule.pause_after(EXPIRED)
    with pytest.raises(Rejection) as raised:
        schedule.start_attempt("second")
    assert raised.value is EXPIRED


@given(st.sampled_from(CODES))
def test_after_a_lost_answer_only_a_decision_tells_the_outcome(code: grpc.StatusCode) -> None:
    schedule = RetrySchedule()
    schedule.pause_after(UNAVAILABLE)
    last = Rejection(code)
    outcome = schedule.outcome_of(last, "r-1")
    if code in DECIDED:
        assert outcome is last
    else:
        assert isinstance(outcome, OutcomeUnknown)
        assert (outcome.request_id, outcome.rejection) == ("r-1", last)


def test_a_command_that_was_never_taken_is_rejected() -> None:
    schedule = RetrySchedule()
    schedule.pause_after(OVERLOADED)
    assert schedule.outcome_of(OVERLOADED, "r-1") is OVERLOADED
    assert schedule.outcome_of(DENIED, "r-1") is DENIED
