"""In any order of events, replies, timers, commands and operators' actions, money and seats agree."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from command_server.contexts.ticketing.domain.booking import Status
from command_server.contexts.ticketing.domain.messages import CancelShow, ReturnTickets
from command_server.kernel.decider import Rejected
from process_manager.saga import ActionNotPossible
from process_manager.sagas.purchase import PURCHASES
from process_manager.sagas.ticketing_cancellation import CANCELLATIONS
from tests.support.builders.theatre import get_booking
from tests.support.models.ticketing_simulation import Simulation

STEPS = (
    "hold_money",
    "firm_money",
    "issue",
    "capture_money",
    "release_money",
    "fail",
    "refund",
    "list",
    "settle",
)
BOOKINGS = ("b-1", "b-2")
bookings = st.sampled_from(BOOKINGS)
PRICE, SEATS = 20, 2


class Machine(RuleBasedStateMachine):
    """Two purchases on one account, with everything that may come between their steps."""

    @initialize(money=st.sampled_from([30, 70, 1_000]), steps=st.integers(0, 12))
    def begin(self, money: int, steps: int) -> None:
        self.money = money
        self.simulation = Simulation(money=money)
        for booking in BOOKINGS:
            self.simulation.buy(booking, SEATS, buyer=booking)
        for _ in range(steps):
            _ = self.simulation.deliver_event() or self.simulation.answer_step()

    @rule(saga=st.sampled_from(["", PURCHASES.name, CANCELLATIONS.name]))
    def deliver(self, saga: str) -> None:
        self.simulation.deliver_event(saga)

    @rule(step=st.sampled_from(["", *STEPS]))
    def answer(self, step: str) -> None:
        self.simulation.answer_step(step)

    @rule()
    def lose_reply(self) -> None:
        self.simulation.lose_reply()

    @rule(booking=bookings)
    def return_tickets(self, booking: str) -> None:
        self.execute(ReturnTickets(booking, "ill"))

    @rule(chance=st.integers(0, 3))
    def cancel(self, chance: int) -> None:
        if not chance:
            self.execute(CancelShow("s-1", "rain"))

    @rule(minutes=st.sampled_from([1, 14, 20]))
    def wait(self, minutes: int) -> None:
        self.simulation.advance_time(timedelta(minutes=minutes))

    @rule(booking=bookings, abort=st.booleans())
    def act(self, booking: str, abort: bool) -> None:
        with suppress(ActionNotPossible):
            if abort:
                self.simulation.abort(PURCHASES.name, booking, "fraud")
            else:
                self.simulation.retry(PURCHASES.name, booking)

    def execute(self, command: Any) -> None:
        with suppress(Rejected):
            self.simulation.execute(command)

    def teardown(self) -> None:
        if not hasattr(self, "simulation"):
            return
        simulation = self.simulation
        for _ in range(3):
            simulation.settle()
            simulation.advance_time(timedelta(hours=2))
        simulation.settle()
        states = {booking: get_booking(simulation.world, booking).status for booking in BOOKINGS}
        sold = sum(status is Status.SOLD for status in states.values())
        assert set(states.values()) <= {Status.SOLD, Status.RETURNED, Status.RELEASED}
        _, _, money, seats = simulation.read()
        assert money == (self.money - sold * PRICE * SEATS, 0)
        assert (seats, simulation.sold) == (sold * SEATS, sold * SEATS)
        for booking, status in states.items():
            ended = simulation.purchase(booking).status
            expected = "FAILED" if status is Status.RELEASED else status.value
            assert (ended.state, ended.ended, ended.blocked_reason) == (expected, True, "")


Machine.TestCase.settings = settings(max_examples=40, stateful_step_count=25)
TestPurchases = Machine.TestCase


@pytest.mark.long
def test_money_and_seats_agree_in_many_more_runs() -> None:
    run_state_machine_as_test(Machine, settings=settings(max_examples=1_000, stateful_step_count=40))
