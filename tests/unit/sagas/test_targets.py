"""A target's places and breaker: one probe while it is silent, then a slow start."""

import pytest

from process_manager.dispatch.targets import (
    CALL_TIMEOUT,
    IDLE_TIME,
    PLACES,
    PROBE_INTERVAL,
    SILENT_CALLS,
    SLOW_TIMEOUT,
    Target,
    Targets,
    target_of,
)


@pytest.fixture
def silent() -> Target:
    target = Target("a.v1.CommandService")
    assert [target.record_silence("gone", 0.0) for _ in range(SILENT_CALLS)] == [False, False, True]
    return target


def test_a_target_has_its_places_until_calls_in_a_row_are_not_answered() -> None:
    target = Target("a.v1.CommandService", active=2)
    for _ in range(SILENT_CALLS):
        target.record_silence("gone", 0.0)
        target.record_answer(0.1)
    assert (target.silent, target.count_free(0.0), target.timeout) == (False, PLACES - 2, CALL_TIMEOUT)


def test_a_silent_target_gets_one_probe_at_a_time_at_intervals(silent: Target) -> None:
    assert (silent.count_free(PROBE_INTERVAL - 0.01), silent.count_free(PROBE_INTERVAL)) == (0, 1)
    silent.active = 1
    assert silent.count_free(PROBE_INTERVAL) == 0
    silent.active = 0
    assert silent.record_silence("gone", 10.0) is False
    assert (silent.count_free(10.0), silent.count_free(10.0 + PROBE_INTERVAL)) == (0, 1)


def test_an_answer_reopens_the_places_one_by_one(silent: Target) -> None:
    assert silent.record_answer(0.1)
    assert (silent.silent, silent.count_free(0.0)) == (False, 2)
    assert not silent.record_answer(0.1)
    assert silent.count_free(0.0) == 3
    for _ in range(PLACES):
        silent.record_answer(0.1)
    assert silent.count_free(0.0) == PLACES


def test_a_silence_ends_once_no_call_is_made(silent: Target) -> None:
    end = PROBE_INTERVAL + IDLE_TIME
    assert not silent.forget_silence(end - 0.01)
    silent.active = 1
    assert not silent.forget_silence(end)
    silent.active = 0
    assert silent.forget_silence(end)
    assert (silent.silent, silent.count_free(end)) == (False, 1)
    assert not silent.forget_silence(end)


def test_a_slow_target_has_more_time_until_it_is_fast_again(silent: Target) -> None:
    assert silent.timeout == SLOW_TIMEOUT
    silent.record_answer(CALL_TIMEOUT + 5)
    assert silent.timeout == SLOW_TIMEOUT
    silent.record_answer(0.1)
    assert silent.timeout == CALL_TIMEOUT


def test_only_targets_that_do_not_answer_are_silent(silent: Target) -> None:
    targets = Targets({silent.name: silent})
    targets.find("full").active = PLACES
    assert targets.find("full").count_free(0.0) == 0
    assert targets.list_silent() == {silent.name: silent}


@pytest.mark.parametrize(
    ("method", "target"),
    [("/a.v1.CommandService/Do", "a.v1.CommandService"), ("nonsense", ""), ("", ""), ("/a", "a")],
)
def test_every_method_has_a_target(method: str, target: str) -> None:
    assert target_of(method) == target
