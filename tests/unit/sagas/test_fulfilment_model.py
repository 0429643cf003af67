"""However events, answers, times and people come, an order ends with all kept for it, or with nothing."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from command_server.contexts.ordering.domain import messages as orders
from command_server.kernel.decider import Rejected
from command_server.kernel.money import Money
from process_manager.saga import RetryRequested
from process_manager.sagas.fulfilment.requests import RESERVED_FOR
from tests.support.models.company import ORDER, Company

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
    """One order, and a world in which anything happens at any time."""

    @initialize(
        money=some.sampled_from([30, 40, 1000]),
        price=some.sampled_from([0, 10, 10, 200]),
        steps=some.integers(0, 8),
    )
    def begin(self, money: int, price: int, steps: int) -> None:
        self.money = money
        self.company = Company(money=money, price=price)
        self.company.place()
        self.go_on(steps)

    @rule()
    def hear(self) -> None:
        self.company.hear()

    @rule()
    def answer(self) -> None:
        self.company.answer()

    @rule()
    def lose_an_answer(self) -> None:
        self.company.lose()

    @rule(steps=some.integers(1, 4))
    def go_on(self, steps: int) -> None:
        for _ in range(steps):
            _ = self.company.hear() or self.company.answer()

    @rule(minutes=some.sampled_from([1, 16, 61, 5000]))
    def wait(self, minutes: int) -> None:
        self.company.wait(timedelta(minutes=minutes))

    @rule(command=some.sampled_from(EDITS))
    def edit(self, command: Any) -> None:
        self.ask(command)

    @rule(command=some.sampled_from(REVIEWS))
    def review(self, command: Any) -> None:
        self.ask(command)

    @rule(command=some.sampled_from((*FORWARD, *ENDS)))
    def move(self, command: Any) -> None:
        self.ask(command)

    def ask(self, command: Any) -> None:
        with suppress(Rejected):
            self.company.do(command)

    @rule(kind=some.none() | some.sampled_from(STEPS))
    def fail(self, kind: str | None) -> None:
        self.company.refuse = {kind: "NO_REASON"} if kind else {}

    @invariant()
    def nothing_is_kept_that_nobody_knows_of(self) -> None:
        if hasattr(self, "company"):
            on_hand, reserved = self.company.stock()
            balance, held = self.company.money()
            assert 0 <= reserved <= on_hand
            assert 0 <= held <= balance

    def teardown(self) -> None:
        """Let everything come to an end, as time and an operator would."""
        if not hasattr(self, "company"):
            return
        company = self.company
        company.refuse = {}
        for _ in range(4):
            company.settle()
            company.tell(RetryRequested(company.world.now))
            company.wait(timedelta(days=4))
            company.settle()
        self.check(company)

    def check(self, company: Company) -> None:
        (tea, reserved), (balance, held) = company.stock(), company.money()
        lines = company.world.state(ORDER).contents.lines
        pieces = sum(line.quantity for line in lines if line.sku == "tea")
        cost = sum(line.quantity * line.unit_price.units for line in lines)
        match company.order_status:
            case "CANCELLED" | "REJECTED":
                assert (tea, reserved, balance, held) == (10, 0, self.money, 0)
            case "CONFIRMED" if not company.saga.status.blocked_reason:
                assert (tea, reserved, balance, held) == (10, pieces, self.money, cost)
            case "SHIPPED" | "DELIVERED" if not company.saga.status.blocked_reason:
                assert (tea, reserved, balance, held) == (10 - pieces, 0, self.money - cost, 0)
            case "RETURNED" if not company.saga.status.blocked_reason:
                assert (tea, reserved, balance, held) == (10, 0, self.money, 0)
            case status:
                assert company.saga.status.blocked_reason, f"{status} is no end"
        assert (
            company.saga.status.ended
            or company.order_status == "CONFIRMED"
            or company.saga.status.blocked_reason
        )


assert timedelta(minutes=61) > RESERVED_FOR
Machine.TestCase.settings = settings(max_examples=400, stateful_step_count=8, deadline=None)
TestFulfilmentModel = Machine.TestCase
