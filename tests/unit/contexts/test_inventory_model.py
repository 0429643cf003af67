"""Inventory does what a plain model says, and what is derived of it is what two independent folds say."""

from hypothesis import settings

from tests.support.harness import folds
from tests.support.models.inventory import Machine


class Compared(Machine):
    """Compares, at the end, every stream's snapshot and views with the independent fold."""

    def teardown(self) -> None:
        super().teardown()
        folds.compare(self.world)


Compared.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestInventoryModel = Compared.TestCase
