"""In any order of events, replies, commands and operators' actions, an alert with terms raises one order."""

from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from command_server.contexts import inventory
from command_server.contexts.inventory.domain.messages import (
    DiscontinueProduct,
    RegisterProduct,
    ReorderTerms,
)
from command_server.contexts.inventory.domain.purchase_messages import (
    PurchaseLine,
    RaisePurchaseOrder,
    SetReorderTerms,
)
from command_server.kernel.decider import Rejected
from command_server.kernel.money import Money
from diptych_testing.saga_simulation import SagaSimulation
from process_manager.saga import ActionNotPossible
from process_manager.sagas.inventory import SAGAS
from process_manager.sagas.inventory_reorder import REORDERS
from tests.support.builders.warehouse import SKU, WAREHOUSE, receive, reserve

TERMS = ReorderTerms("tea-house", 50, Money("EUR", 2))


class Machine(RuleBasedStateMachine):
    """A stock around its reorder point, with everything that may come between the steps of its sagas."""

    @initialize()
    def begin(self) -> None:
        self.simulation = SagaSimulation(SAGAS, [inventory.CONTEXT])
        self.simulation.execute(RegisterProduct(SKU, "Tea", 2), receive(3))
        self.simulation.execute(SetReorderTerms(SKU, WAREHOUSE, TERMS))
        self.numbers = 0

    def list_alerts(self) -> list[str]:
        """Return the orders that alerts name."""
        history = self.simulation.world.history
        return [
            event.purchase_order_id
            for _, event in history
            if type(event).__name__ == "ReorderAlertRaised" and event.purchase_order_id
        ]

    def execute(self, command: Any) -> None:
        with suppress(Rejected):
            self.simulation.execute(command)

    @rule(sells=st.booleans())
    def cross(self, sells: bool) -> None:
        """Sell what is above the reorder point, or receive some again."""
        self.numbers += 1
        name = f"x-{self.numbers}"
        self.execute(reserve(name, 1) if sells else receive(1, name))

    @rule(chance=st.integers(0, 9))
    def change(self, chance: int) -> None:
        if chance < 3:
            self.execute(SetReorderTerms(SKU, WAREHOUSE, TERMS if chance else None))
        elif chance == 9:
            self.execute(DiscontinueProduct(SKU))

    @rule()
    def deliver(self) -> None:
        self.simulation.deliver_event(REORDERS.name)

    @rule(rejects=st.booleans())
    def answer(self, rejects: bool) -> None:
        self.simulation.rejections = {"raise": "NOT_NOW"} if rejects else {}
        self.simulation.answer_step("raise")

    @rule()
    def lose_reply(self) -> None:
        self.simulation.rejections = {}
        self.simulation.lose_reply()

    @rule(index=st.integers(0, 3), action=st.sampled_from(["retry", "abort", "by hand"]))
    def act(self, index: int, action: str) -> None:
        if index >= len(alerts := self.list_alerts()):
            return
        if action == "by hand":
            line = PurchaseLine(SKU, TERMS.quantity, TERMS.unit_price)
            self.execute(RaisePurchaseOrder(alerts[index], "tea-house", WAREHOUSE, (line,), caller="ada"))
        elif action == "retry":
            self.simulation.retry(REORDERS.name, alerts[index])
        else:
            with suppress(ActionNotPossible):
                self.simulation.abort(REORDERS.name, alerts[index], "enough")

    def teardown(self) -> None:
        if not hasattr(self, "simulation"):
            return
        self.simulation.rejections = {}
        self.simulation.settle()
        alerts = self.list_alerts()
        for order_id in alerts:
            self.simulation.retry(REORDERS.name, order_id)
        self.simulation.settle()
        assert len(set(alerts)) == len(alerts)
        raised = Counter(
            event.purchase_order_id
            for _, event in self.simulation.world.history
            if type(event).__name__ == "PurchaseOrderRaised"
        )
        assert set(raised.values()) <= {1}
        assert set(raised) <= set(alerts)
        for order_id in alerts:
            status = self.simulation.find_instance(REORDERS.name, order_id).status
            if status.state == "RAISED":
                assert raised[order_id] == 1
            elif status.state != "ABORTED":
                assert status.blocked_reason == "raise was rejected: PRODUCT_DISCONTINUED"


Machine.TestCase.settings = settings(max_examples=15, stateful_step_count=25)
TestReorders = Machine.TestCase


@pytest.mark.long
def test_an_alert_raises_one_order_in_many_more_runs() -> None:
    run_state_machine_as_test(Machine, settings=settings(max_examples=500, stateful_step_count=40))
