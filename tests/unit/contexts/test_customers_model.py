"""Customers behave like their model, and all folds of their events agree."""

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from diptych_testing import folds
from tests.support.models.customers import CustomerMachine


class ComparedMachine(CustomerMachine):
    """Compares every stream's snapshot and views with the independent fold at the end of a run."""

    def teardown(self) -> None:
        super().teardown()
        folds.compare(self.world)


ComparedMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40)
TestCustomersModel = ComparedMachine.TestCase


@pytest.mark.long
def test_customers_follow_the_model_in_many_more_runs() -> None:
    run_state_machine_as_test(ComparedMachine, settings=settings(max_examples=1_000, stateful_step_count=60))
