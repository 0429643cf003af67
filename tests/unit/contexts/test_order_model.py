"""The domain behaves like the model of an order for random sequences of commands."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from command_server.contexts.ordering.domain import messages
from command_server.contexts.ordering.domain.contents import sum_lines
from command_server.contexts.ordering.domain.order import Order, decide, evolve
from command_server.kernel.decider import Rejected
from diptych_testing.scenario import NOW
from tests.support.builders.orders import OWN_PRICES
from tests.support.models.order import JSON, NANOS, OrderMachine


class DomainMachine(OrderMachine):
    """Executes the commands on the domain in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.order = Order()
        self.version = 0

    def execute(self, name: str, fields: JSON) -> str:
        command: Any = msgspec.convert(
            {"order_id": "o-1", "scopes": OWN_PRICES, **fields}, getattr(messages, name)
        )
        try:
            events = decide(command, self.order, NOW)
        except Rejected as error:
            return error.reason
        for event in events:
            self.order = evolve(self.order, event)
            self.version += 1
            if event_total := getattr(event, "total", None):
                assert event_total.units * NANOS + event_total.nanos == self.model.total()
        return ""

    def compare(self) -> None:
        groups = json.loads(msgspec.json.encode(self.order.contents.groups))
        fields = ("shipping_group_id", "lines", "shipping_address")
        expected = [{field: group[field] for field in fields} for group in self.model.groups.values()]
        assert (self.order.status.value, self.version) == (self.model.status, self.model.version)
        assert groups == expected
        if lines := self.order.contents.lines:
            amount = sum_lines(lines)
            assert amount.units * NANOS + amount.nanos == self.model.total()


DomainMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40)
TestOrderModel = DomainMachine.TestCase


@pytest.mark.long
def test_orders_follow_the_model_in_many_more_runs() -> None:
    run_state_machine_as_test(DomainMachine, settings=settings(max_examples=800, stateful_step_count=40))
