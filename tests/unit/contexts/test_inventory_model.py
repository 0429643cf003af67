"""Inventory behaves like its model, and both folds of its events agree."""

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from diptych_testing import folds
from tests.support.models.inventory import InventoryMachine


class ComparedMachine(InventoryMachine):
    """Compares every stream's snapshot and views with the independent fold at the end of a run."""

    def teardown(self) -> None:
        super().teardown()
        folds.compare(self.world)


ComparedMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=50)
TestInventoryModel = ComparedMachine.TestCase


@pytest.mark.long
def test_inventory_follows_the_model_in_many_more_runs() -> None:
    run_state_machine_as_test(ComparedMachine, settings=settings(max_examples=400, stateful_step_count=50))
