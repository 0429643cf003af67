"""Purchase orders behave like their model, and both folds of their events agree."""

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from diptych_testing import folds
from tests.support.models.purchasing import PurchasingMachine


class ComparedMachine(PurchasingMachine):
    """Compares every stream's snapshot and views with the independent fold at the end of a run."""

    def teardown(self) -> None:
        super().teardown()
        folds.compare(self.world)


ComparedMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=40)
TestPurchaseOrderModel = ComparedMachine.TestCase


@pytest.mark.long
def test_purchase_orders_follow_the_model_in_many_more_runs() -> None:
    run_state_machine_as_test(ComparedMachine, settings=settings(max_examples=400, stateful_step_count=50))
