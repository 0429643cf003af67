"""A later life of the database has the greater name, whatever the clocks say."""

from uuid import UUID, uuid4

import pytest

from contracts import incarnations


def test_each_life_is_greater_than_the_one_before() -> None:
    lives = [incarnations.after()]
    for _ in range(100):
        lives.append(incarnations.after(lives[-1]))
    assert lives == sorted(set(lives))
    assert {UUID(life).version for life in lives} == {7}


def test_a_clock_that_has_gone_back_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = incarnations.after()
    monkeypatch.setattr(incarnations, "time", lambda: 1.0)
    assert incarnations.after(now) > now


def test_a_random_name_is_followed_by_a_greater_one() -> None:
    for _ in range(100):
        before = str(uuid4())
        assert incarnations.after(before) > before
