"""Every step is sent again by another caller under another request id, and has its effect once.

The saga hears the second answer alone, as one does whose manager lost the first and has a new subject.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid5

from diptych.banking.v1.command_service_pb2 import DepositRequest
from msgspec import structs

from command_server.contexts.banking.domain.messages import OpenAccount
from command_server.contexts.ordering.domain import messages as orders
from diptych_testing.saga_simulation import SagaSimulation, SentStep
from process_manager.dispatch.step_requests import method_of, path_of, serialize_with_id
from process_manager.groups.step import Step
from process_manager.saga import Input
from process_manager.sagas import banking as banking_sagas
from process_manager.sagas import inventory as inventory_sagas
from process_manager.sagas.fulfilment import REVIEW_TIMEOUT, requests
from process_manager.sagas.fulfilment.facts import Fulfilment
from tests.support.builders.bank import deposit, get_levels, hold
from tests.support.models.fulfilment_simulation import CONTEXTS, Simulation

REPEATED = UUID(int=7)
CANCEL = orders.CancelOrder("o-1", "changed my mind")
APPROVE = orders.ApproveOrder("o-1")
RETURN = (
    orders.ShipOrder("o-1", "Swift", "123"),
    orders.DeliverOrder("o-1"),
    orders.ReturnOrder("o-1", "does not fit"),
)


def repeat(execute: Callable[[Step], Input], step: Step) -> Input:
    """Execute a step under another request id."""
    method = step.method.rpartition("/")[2]
    request_type = next(each for each in DECLARED if each.DESCRIPTOR.name == f"{method}Request")
    request_id = uuid5(REPEATED, str(step.request_id))
    request = serialize_with_id(request_type.FromString(step.request), request_id)
    return execute(replace(step, request=request, request_id=request_id))


DECLARED: Any = (*requests.REQUESTS, *banking_sagas.HOLDS.requests, *inventory_sagas.RESERVATIONS.requests)


class RepeatingSimulation(Simulation):
    """Executes every command of a step twice, and answers with the second reply."""

    def __init__(self, **supplies: int) -> None:
        super().__init__(**supplies)
        self.repeated: set[str] = set()

    def _execute(self, sent: SentStep) -> Input:
        super()._execute(sent)
        before = list(self.world.history)
        reply = repeat(self._executor.execute, sent.step)
        assert self.world.history == before, f"{sent.name} has its effect twice"
        self.repeated.add(sent.name.partition("-")[0])
        return reply


def run(*commands: Any, price: int = 10, wait: timedelta = timedelta(0)) -> RepeatingSimulation:
    simulation = RepeatingSimulation(money=20_000, price=price)
    simulation.place_order()
    simulation.settle()
    for command in commands:
        simulation.execute(command)
        simulation.settle()
    simulation.advance_time(wait)
    simulation.settle()
    return simulation


def test_a_returned_order_is_refunded_and_restocked_once() -> None:
    simulation = run(*RETURN)
    assert (simulation.saga_status, simulation.money(), simulation.stock()) == (
        "RETURNED",
        (20_000, 0),
        (10, 0),
    )
    assert {"reserve", "hold_money", "firm_stock", "firm_money", "confirm"} < simulation.repeated
    assert {"commit_stock", "capture_money", "refund", "restock"} < simulation.repeated
    events = Counter(type(event).__name__ for _, event in simulation.world.history)
    assert (events["RefundPaid"], events["HoldCaptured"], events["DeliveryReceived"]) == (1, 1, 4)


def test_a_cancelled_order_releases_its_claims_once() -> None:
    simulation = run(CANCEL)
    assert (simulation.saga_status, simulation.money(), simulation.stock()) == (
        "CANCELLED",
        (20_000, 0),
        (10, 0),
    )
    assert {"release_stock", "release_money"} < simulation.repeated


def test_an_order_is_held_once_and_not_again_after_its_approval() -> None:
    simulation = run(APPROVE, price=2_000)
    assert (simulation.order_status, simulation.saga_status) == ("CONFIRMED", "CONFIRMED")
    assert "hold_order" in simulation.repeated
    assert sum(type(event) is orders.OrderHeld for _, event in simulation.world.history) == 1


def test_an_order_whose_review_took_too_long_is_rejected_once() -> None:
    simulation = run(price=2_000, wait=REVIEW_TIMEOUT)
    assert (simulation.order_status, simulation.saga_status) == ("REJECTED", "REJECTED")
    assert "reject" in simulation.repeated


def test_an_approved_order_is_not_held_again_by_a_step_whose_answer_was_lost() -> None:
    """The answer to HoldOrder is lost, a person approves, and another caller sends the step again."""
    simulation = Simulation(money=20_000, price=2_000)
    simulation.place_order()
    while not (simulation.pending and simulation.pending[0].is_kind("hold_order")):
        assert simulation.deliver_event() or simulation.answer_step()
    simulation.lose_reply()
    simulation.execute(APPROVE)
    (sent,) = simulation.pending
    reply = repeat(simulation._executor.execute, sent.step)
    simulation.pending.clear()
    simulation.deliver(sent.instance, reply)
    simulation.settle()
    assert simulation.order_status == "CONFIRMED"


def test_a_hold_expires_once() -> None:
    simulation = SagaSimulation([banking_sagas.HOLDS], CONTEXTS)
    simulation.execute(
        OpenAccount("a-1", "ada", "EUR", None, None), deposit("a-1", 100), hold("h-1", 5, "a-1")
    )
    simulation.settle()
    simulation.advance_time(timedelta(hours=2))
    (sent,) = simulation.pending
    simulation.settle()
    before = list(simulation.world.history)
    repeat(simulation._executor.execute, sent.step)
    assert simulation.world.history == before
    assert get_levels(simulation.world, "a-1") == (100, 0)


def test_a_refund_that_an_earlier_release_has_sent_is_the_only_one() -> None:
    """Its unanswered step keeps its request, a Deposit, and the saga sends no other refund."""
    simulation = Simulation()
    simulation.place_order()
    simulation.settle()
    simulation.execute(*RETURN)
    while not (simulation.pending and simulation.pending[0].is_kind("refund")):
        assert simulation.deliver_event() or simulation.answer_step()
    sent = simulation.pending.popleft()
    earlier = DepositRequest(
        account_id="a-1", amount={"currency_code": "EUR", "units": 40}, reference="refund"
    )
    step = replace(
        sent.step,
        method=path_of(method_of(earlier)),
        request=serialize_with_id(earlier, sent.step.request_id),
    )
    simulation.pending.appendleft(SentStep(sent.instance, step))
    simulation.settle()
    assert (simulation.saga_status, simulation.money()) == ("RETURNED", (100, 0))
    assert simulation.sent_kinds.count("refund") == 1


def test_the_id_of_a_refund_is_made_of_order_and_round() -> None:
    fulfilment = Fulfilment(order_id="o-1", generation=1)
    others = (structs.replace(fulfilment, order_id="o-2"), structs.replace(fulfilment, generation=2))
    assert len({requests.derive_refund_id(each) for each in (fulfilment, *others)}) == 3
    assert requests.derive_refund_id(structs.replace(fulfilment, restocked=1)) == requests.derive_refund_id(
        fulfilment
    )
