"""In any order of events, replies, timers and commands, an order ends with all its claims or with none."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from command_server.contexts.ordering.domain import messages as orders
from command_server.kernel.decider import Rejected
from command_server.kernel.money import Money
from process_manager.sagas.fulfilment import FULFILMENT
from process_manager.sagas.fulfilment.requests import CLAIM_LIFETIME
from tests.support.models.fulfilment_simulation import ORDER, Simulation

STEPS = (
    "reserve",
    "hold_money",
    "firm_stock",
    "firm_money",
    "commit_stock",
    "capture_money",
    "refund",
    "restock",
)
POT = orders.OrderLine("pot", "A pot", 1, Money("EUR", 5))
EDITS: tuple[Any, ...] = (orders.RemoveOrderLine("o-1", "", "mug"), orders.AddOrderLine("o-1", "", POT))
REVIEWS: tuple[Any, ...] = (orders.HoldOrder("o-1", "let me see"), orders.ApproveOrder("o-1"))
ENDS: tuple[Any, ...] = (orders.CancelOrder("o-1", "changed my mind"), orders.RejectOrder("o-1", "no"))
FORWARD: tuple[Any, ...] = (
    orders.ConfirmOrder("o-1"),
    orders.ShipOrder("o-1", "Swift", "123"),
    orders.DeliverOrder("o-1"),
    orders.ReturnOrder("o-1", "does not fit"),
)


class Machine(RuleBasedStateMachine):
    """One order, with events, replies, timers and commands in any order."""

    @initialize(
        money=st.sampled_from([30, 40, 1000]),
        price=st.sampled_from([0, 10, 10, 200]),
        steps=st.integers(0, 8),
    )
    def begin(self, money: int, price: int, steps: int) -> None:
        self.money = money
        self.simulation = Simulation(money=money, price=price)
        self.simulation.place_order()
        self.proceed(steps)

    @rule()
    def deliver_event(self) -> None:
        self.simulation.deliver_event()

    @rule()
    def answer_step(self) -> None:
        self.simulation.answer_step()

    @rule()
    def lose_reply(self) -> None:
        self.simulation.lose_reply()

    @rule(steps=st.integers(1, 4))
    def proceed(self, steps: int) -> None:
        for _ in range(steps):
            _ = self.simulation.deliver_event() or self.simulation.answer_step()

    @rule(minutes=st.sampled_from([1, 16, 61, 5000]))
    def advance_time(self, minutes: int) -> None:
        self.simulation.advance_time(timedelta(minutes=minutes))

    @rule(command=st.sampled_from(EDITS))
    def edit(self, command: Any) -> None:
        self.try_to_execute(command)

    @rule(command=st.sampled_from(REVIEWS))
    def review(self, command: Any) -> None:
        self.try_to_execute(command)

    @rule(command=st.sampled_from((*FORWARD, *ENDS)))
    def end_or_advance(self, command: Any) -> None:
        self.try_to_execute(command)

    def try_to_execute(self, command: Any) -> None:
        with suppress(Rejected):
            self.simulation.execute(command)

    @rule(kind=st.none() | st.sampled_from(STEPS))
    def reject_steps(self, kind: str | None) -> None:
        self.simulation.rejections = {kind: "NO_REASON"} if kind else {}

    @invariant()
    def claims_never_exceed_the_goods_or_the_balance(self) -> None:
        if hasattr(self, "simulation"):
            on_hand, reserved = self.simulation.stock()
            balance, held = self.simulation.money()
            assert 0 <= reserved <= on_hand
            assert 0 <= held <= balance

    def teardown(self) -> None:
        """Run the order to its end, with timers fired and the operator retrying, then check it."""
        if not hasattr(self, "simulation"):
            return
        simulation = self.simulation
        simulation.rejections = {}
        for _ in range(4):
            simulation.settle()
            simulation.retry(FULFILMENT.name, "o-1")
            simulation.advance_time(timedelta(days=4))
            simulation.settle()
        self.check(simulation)

    def check(self, simulation: Simulation) -> None:
        (tea, reserved), (balance, held) = simulation.stock(), simulation.money()
        lines = simulation.world.state(ORDER).contents.lines
        pieces = sum(line.quantity for line in lines if line.sku == "tea")
        cost = sum(line.quantity * line.unit_price.units for line in lines)
        match simulation.order_status:
            case "CANCELLED" | "REJECTED":
                assert (tea, reserved, balance, held) == (10, 0, self.money, 0)
            case "CONFIRMED" if not simulation.instance.status.blocked_reason:
                assert (tea, reserved, balance, held) == (10, pieces, self.money, cost)
            case "SHIPPED" | "DELIVERED" if not simulation.instance.status.blocked_reason:
                assert (tea, reserved, balance, held) == (10 - pieces, 0, self.money - cost, 0)
            case "RETURNED" if not simulation.instance.status.blocked_reason:
                assert (tea, reserved, balance, held) == (10, 0, self.money, 0)
            case status:
                assert simulation.instance.status.blocked_reason, f"{status} is not final"
        assert (
            simulation.instance.status.ended
            or simulation.order_status == "CONFIRMED"
            or simulation.instance.status.blocked_reason
        )


assert timedelta(minutes=61) > CLAIM_LIFETIME
Machine.TestCase.settings = settings(max_examples=400, stateful_step_count=8, deadline=None)
TestFulfilmentModel = Machine.TestCase
