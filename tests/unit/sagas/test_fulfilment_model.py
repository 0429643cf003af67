"""In any order of events, replies, timers, commands and operators' actions, an order ends as people decided.

It has all its claims or none; a blocked saga is no end, so an operator ends it. The simulation checks that
nothing is acquired for an order that nobody cleared.
"""

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from command_server.contexts.ordering.domain import messages as orders
from command_server.kernel.decider import Rejected
from command_server.kernel.money import Money
from process_manager.saga import ActionNotPossible
from process_manager.sagas.fulfilment import FULFILMENT
from process_manager.sagas.fulfilment.requests import CLAIM_LIFETIME
from tests.support.builders.orders import OWN_PRICES
from tests.support.models.fulfilment_simulation import ACTIVITY, ORDER, Simulation
from tests.support.models.verdicts import find_wrong_timeouts

STEPS = (
    "assess",
    "hold_order",
    "reserve",
    "hold_money",
    "firm_stock",
    "firm_money",
    "confirm",
    "release_stock",
    "release_money",
    "reject",
    "commit_stock",
    "capture_money",
    "refund",
    "restock",
)
POT = orders.OrderLine("pot", "A pot", 1, Money("EUR", 5))
DEAR_POT = orders.OrderLine("pot", "A pot", 1, Money("EUR", 600))
"""With it any order is suspicious."""
ELSEWHERE = orders.ShippingAddress("Ada", ("Side Street 2",), "10115", "Berlin", "DE")
EDITS: tuple[Any, ...] = (
    orders.RemoveOrderLine("o-1", "", "mug"),
    orders.AddOrderLine("o-1", "", POT, scopes=OWN_PRICES),
    orders.AddOrderLine("o-1", "", DEAR_POT, scopes=OWN_PRICES),
    orders.ChangeShippingAddress("o-1", "", ELSEWHERE),
)
REVIEWS: tuple[Any, ...] = (orders.HoldOrder("o-1", "let me see"), orders.ApproveOrder("o-1"))
ENDS: tuple[Any, ...] = (orders.CancelOrder("o-1", "changed my mind"), orders.RejectOrder("o-1", "no"))
FORWARD: tuple[Any, ...] = (
    orders.ConfirmOrder("o-1"),
    orders.ShipOrder("o-1", "Swift", "123"),
    orders.DeliverOrder("o-1"),
    orders.ReturnOrder("o-1", "does not fit"),
)
HASTY: tuple[tuple[Any, ...], ...] = (
    (),
    (),
    FORWARD[:1],
    FORWARD[:2],
    FORWARD,
    (*REVIEWS, EDITS[2]),
    (*REVIEWS, EDITS[2], *FORWARD[:2]),
)
"""What people send before the saga looks."""


class Machine(RuleBasedStateMachine):
    """One order, with events, replies, timers and commands in any order."""

    @initialize(
        money=st.sampled_from([30, 40, 1000]),
        price=st.sampled_from([0, 10, 10, 200]),
        hasty=st.sampled_from(HASTY),
        steps=st.integers(0, 8),
        ending=st.sampled_from(["retry", "abort", "cancel", "approve"]),
    )
    def begin(self, money: int, price: int, hasty: tuple[Any, ...], steps: int, ending: str) -> None:
        self.ending = ending
        self.simulation = Simulation(money=money, price=price)
        self.simulation.place_order()
        self.simulation.execute(*hasty)
        self.proceed(steps)

    @rule(stream=st.sampled_from(["", ORDER, ACTIVITY]))
    def deliver_event(self, stream: str) -> None:
        self.simulation.deliver_event(stream=stream)

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

    @rule()
    def abort(self) -> None:
        with suppress(ActionNotPossible):
            self.simulation.abort(FULFILMENT.name, "o-1", "enough")

    @rule()
    def retry(self) -> None:
        self.simulation.retry(FULFILMENT.name, "o-1")

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
        """Run the order to its end, with timers fired and an operator at work, then check it."""
        if not hasattr(self, "simulation"):
            return
        simulation = self.simulation
        simulation.rejections = {}
        for _ in range(4):
            simulation.settle()
            assert simulation.known_status == simulation.order_status
            if simulation.instance.status.blocked_reason:
                if simulation.saga_status == "BLOCKED":
                    assert self.acquired == (0, 0, 0)
                assert not (simulation.order_status == "CONFIRMED" and simulation.instance.state.is_claimed)
                self.end_blocked()
                simulation.settle()
            simulation.advance_time(timedelta(days=4))
        simulation.settle()
        self.check(simulation)
        assert find_wrong_timeouts(simulation.world.history) == []

    @property
    def acquired(self) -> tuple[int, int, int]:
        """Pieces of tea that are reserved or gone, and money that is held."""
        (on_hand, reserved), (_, held) = self.simulation.stock(), self.simulation.money()
        return self.simulation.supplied[0] - on_hand, reserved, held

    def end_blocked(self) -> None:
        """Do what the documentation tells an operator to do about a blocked saga."""
        if self.ending == "abort":
            self.abort()
            self.simulation.settle()
        if self.ending in ("abort", "cancel") and self.simulation.order_status == "CONFIRMED":
            self.simulation.execute(orders.CancelOrder("o-1", "cannot be fulfilled"))
            self.simulation.settle()
        else:
            self.simulation.supply()
        if self.simulation.saga_status == "BLOCKED":
            self.simulation.execute(orders.ApproveOrder("o-1"))
            self.simulation.settle()
        self.simulation.retry(FULFILMENT.name, "o-1")

    def check(self, simulation: Simulation) -> None:
        assert not simulation.instance.status.blocked_reason
        (tea, reserved), (balance, held) = simulation.stock(), simulation.money()
        lines = simulation.world.state(ORDER).contents.lines
        pieces = sum(line.quantity for line in lines if line.sku == "tea")
        cost = sum(line.quantity * line.unit_price.units for line in lines)
        all_tea, all_money = simulation.supplied
        match simulation.order_status:
            case _ if simulation.saga_status == "ABORTED":
                assert (tea, reserved, balance, held) == (all_tea, 0, all_money, 0)
            case "CANCELLED" | "REJECTED" | "RETURNED":
                assert (tea, reserved, balance, held) == (all_tea, 0, all_money, 0)
            case "CONFIRMED":
                assert (tea, reserved, balance, held) == (all_tea, pieces, all_money, cost)
            case "SHIPPED" | "DELIVERED":
                assert (tea, reserved, balance, held) == (all_tea - pieces, 0, all_money - cost, 0)
            case status:
                raise AssertionError(f"{status} is not final")
        assert simulation.instance.status.ended or simulation.order_status == "CONFIRMED"


assert timedelta(minutes=61) > CLAIM_LIFETIME
Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=8)
TestFulfilmentModel = Machine.TestCase


@pytest.mark.long
def test_fulfilment_follows_the_model_in_many_more_runs() -> None:
    run_state_machine_as_test(Machine, settings=settings(max_examples=1600, stateful_step_count=8))
