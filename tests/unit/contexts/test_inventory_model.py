"""Inventory behaves like its model, and both folds of its events agree."""

from hypothesis import settings

from diptych_testing import folds
from tests.support.models.inventory import InventoryMachine


class ComparedMachine(InventoryMachine):
    """Compares every stream's snapshot and views with the independent fold at the end of a run."""

    def teardown(self) -> None:
        super().teardown()
        folds.compare(self.world)


ComparedMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=50)
TestInventoryModel = ComparedMachine.TestCase
