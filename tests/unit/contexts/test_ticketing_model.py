"""Ticketing behaves like its model, and all folds of its events agree."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from command_server.contexts.ticketing.domain.messages import Row
from command_server.contexts.ticketing.domain.seating import find_together
from diptych_testing import folds
from tests.support.models.ticketing import TicketingMachine


class ComparedMachine(TicketingMachine):
    """Compares every stream's snapshot and views with the independent fold at the end of a run."""

    def teardown(self) -> None:
        super().teardown()
        folds.compare(self.world)


ComparedMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=50)
TestTicketingModel = ComparedMachine.TestCase


@pytest.mark.long
def test_ticketing_follows_the_model_in_many_more_runs() -> None:
    run_state_machine_as_test(ComparedMachine, settings=settings(max_examples=500, stateful_step_count=60))


@settings(max_examples=200)
@given(st.lists(st.text(".x", min_size=1, max_size=60), min_size=1, max_size=4), st.integers(1, 8))
def test_the_shortest_free_run_that_fits_is_found(drawn: list[str], count: int) -> None:
    rows = [Row(f"R{number}", len(row)) for number, row in enumerate(drawn)]
    taken = [sum(1 << seat for seat, mark in enumerate(row) if mark == "x") for row in drawn]
    runs = [
        (len(run[0]), number, run.start() + 1)
        for number, row in enumerate(drawn)
        for run in re.finditer(r"\.+", row)
        if len(run[0]) >= count
    ]
    found = find_together(rows, taken, count)
    if not runs:
        assert found is None
    else:
        _, number, first = min(runs)
        assert found is not None
        assert (found.row, found.first, found.count) == (f"R{number}", first, count)
