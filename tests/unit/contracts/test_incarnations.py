"""A later incarnation of the database is the greater one, even if clocks go back."""

from uuid import UUID, uuid4

import pytest

from contracts import incarnations


def test_each_incarnation_is_greater_than_the_previous_one() -> None:
    successive = [incarnations.create()]
    for _ in range(100):
        successive.append(incarnations.create(successive[-1]))
    assert successive == sorted(set(successive))
    assert {UUID(incarnation).version for incarnation in successive} == {7}


def test_a_clock_that_goes_back_does_not_change_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    previous = incarnations.create()
    monkeypatch.setattr(incarnations, "time", lambda: 1.0)
    assert incarnations.create(previous) > previous


def test_an_incarnation_after_a_random_one_is_greater() -> None:
    for _ in range(100):
        previous = str(uuid4())
        assert incarnations.create(previous) > previous
