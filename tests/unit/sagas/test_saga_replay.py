"""Replays of fulfilments whose inputs came in any order; the record does not tell when events came."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from command_server.contexts.ordering.domain import messages as orders
from command_server.kernel.decider import Rejected
from contracts.envelope import RecordedEvent
from operations.rehearse.saga_records import RecordedStep
from operations.rehearse.saga_replay import History, KnownInput, Mismatch, Replay, get_kind
from process_manager.groups.instance import Instance
from process_manager.postgres.stored_values import to_json
from process_manager.saga import (
    ActionNotPossible,
    EventReceived,
    Input,
    Reaction,
    RetryRequested,
    Saga,
    StepRejected,
    StepSucceeded,
    TimerFired,
)
from process_manager.sagas.fulfilment import FULFILMENT
from tests.support.models.fulfilment_simulation import Simulation

TICK = timedelta(milliseconds=7)
NONE = Mismatch("", "", "")


class RecordedSimulation(Simulation):
    """A simulation that keeps what PostgreSQL would have on record."""

    def __init__(self, **supplies: int) -> None:
        self.events: dict[str, list[KnownInput]] = {}
        self.actions: list[KnownInput] = []
        self.steps: list[RecordedStep] = []
        self.replies: list[list[KnownInput]] = []
        super().__init__(**supplies)

    def deliver(self, instance: Instance, input_: Input) -> None:
        self.world.now += TICK
        input_ = replace(input_, at=self.world.now)
        super().deliver(instance, input_)
        if isinstance(input_, StepSucceeded | StepRejected):
            numbers = {step.step: number for number, step in enumerate(self.steps, 1)}
            self.replies.append([KnownInput(input_.at, input_, sent_after=numbers[input_.step])])
        elif not isinstance(input_, TimerFired):
            self.actions.append(KnownInput(input_.at, input_))

    def _deliver_event(self, saga: Saga[Any], event: RecordedEvent) -> None:
        self.world.now += TICK
        subscription = saga.find_subscription(event.stream)
        if subscription.find_instance(event) == "o-1":
            received = EventReceived(
                subscription.events.decode(event), event.version, event.stream, self.world.now
            )
            known = KnownInput(self.world.now - 3 * TICK, received, is_exact=False)
            self.events.setdefault(event.stream, []).append(known)
        super()._deliver_event(saga, event)

    def _collect_reaction(self, instance: Instance) -> None:
        for step in instance.steps:
            at = self.world.now
            self.steps.append(
                RecordedStep(
                    step.step,
                    step.attempt,
                    step.number,
                    step.method,
                    step.request,
                    step.request_id,
                    at,
                    "",
                    at,
                )
            )
        super()._collect_reaction(instance)

    def replay(self, saga: Saga[Any] = FULFILMENT) -> list[Mismatch] | None:
        queues = [*self.events.values(), self.actions, *self.replies]
        timers = {name: at for (_, id_, name), at in self.timers.items() if id_ == "o-1"}
        history = History("o-1", queues, self.steps, to_json(self.instance.state), timers)
        return Replay(saga, history).run([(saga.initial, (0,) * len(queues), {})])


def act(simulation: RecordedSimulation, action: str) -> None:
    match action:
        case "event":
            simulation.deliver_event()
        case "order":
            simulation.deliver_event(stream="ordering.order.o-1")
        case "reply":
            simulation.answer_step()
        case "lose":
            simulation.lose_reply()
        case "wait":
            simulation.advance_time(timedelta(minutes=16))
        case "retry":
            simulation.retry(FULFILMENT.name, "o-1")
        case "abort":
            with suppress(ActionNotPossible):
                simulation.abort(FULFILMENT.name, "o-1", "no")
        case "cancel":
            with suppress(Rejected):
                simulation.execute(orders.CancelOrder("o-1", "no"))
        case "ship":
            with suppress(Rejected):
                simulation.execute(orders.ShipOrder("o-1", "Swift", "1"))


ACTIONS = ("event", "order", "reply", "lose", "wait", "retry", "abort", "cancel", "ship")


@given(
    st.lists(st.sampled_from(("event", "reply", *ACTIONS)), max_size=40),
    st.sampled_from((0, 10)),
    st.sampled_from((0, 100)),
)
@example(["event", "reply", "retry", "reply", "retry"], 0, 0)
@settings(max_examples=30)
def test_the_code_that_ran_makes_no_difference(actions: Sequence[str], stock: int, money: int) -> None:
    simulation = RecordedSimulation(stock=stock or 1, money=money)
    simulation.place_order()
    for action in actions:
        act(simulation, action)
    assert simulation.replay() == []


def create_returned_order() -> RecordedSimulation:
    simulation = RecordedSimulation()
    simulation.place_order()
    simulation.settle()
    for command in (
        orders.ShipOrder("o-1", "Swift", "1"),
        orders.DeliverOrder("o-1"),
        orders.ReturnOrder("o-1", "broken"),
    ):
        simulation.execute(command)
        simulation.settle()
    assert simulation.replay() == []
    return simulation


def change(edit: Callable[[Reaction[Any]], Reaction[Any]]) -> Saga[Any]:
    return replace(FULFILMENT, react=lambda state, input_: edit(FULFILMENT.react(state, input_)))


def drop(kind: str) -> Saga[Any]:
    """Return a saga that does not send steps of a kind."""
    return change(
        lambda reaction: replace(reaction, send=[s for s in reaction.send if get_kind(s.step) != kind])
    )


def test_a_step_that_is_not_sent_is_found() -> None:
    simulation = create_returned_order()
    for kind in {get_kind(step.step) for step in simulation.steps}:
        mismatches = simulation.replay(drop(kind))
        assert mismatches, kind
        assert {mismatch.kind for mismatch in mismatches} == {"steps"}


def test_another_state_at_the_end_is_found() -> None:
    saga = change(lambda reaction: replace(reaction, state=structs.replace(reaction.state, account_id="a-2")))
    mismatches = create_returned_order().replay(saga)
    assert mismatches
    assert {get_kind(path) for _, path, _ in mismatches} >= {"hold_money.account_id"}


def test_an_input_that_fails_is_found() -> None:
    def fail(reaction: Reaction[Any]) -> Reaction[Any]:
        if reaction.state.refunded:
            raise RuntimeError("no refunds")
        return reaction

    (mismatch,) = create_returned_order().replay(change(fail)) or [NONE]
    assert (mismatch.kind, mismatch.path) == ("sagas", "RuntimeError")


def test_a_retry_that_was_recorded_while_an_event_failed_is_not_the_sagas() -> None:
    simulation = RecordedSimulation()
    simulation.place_order()
    simulation.deliver_event()
    simulation.answer_step()
    simulation.world.now += TICK
    simulation.actions.append(KnownInput(simulation.world.now, RetryRequested(simulation.world.now)))
    simulation.settle()  # given to the saga, the retry would repeat the assessment
    assert simulation.replay() == []


@pytest.mark.parametrize("minutes", [1, 0])
def test_another_timer_is_found(minutes: int) -> None:
    simulation = RecordedSimulation()
    simulation.place_order()
    simulation.deliver_event()
    assert simulation.replay() == []

    def shift(at: datetime | None) -> datetime | None:
        return at + timedelta(minutes=minutes) if at and minutes else None

    saga = change(
        lambda reaction: replace(
            reaction, timers=[replace(each, at=shift(each.at)) for each in reaction.timers]
        )
    )
    (mismatch,) = simulation.replay(saga) or [NONE]
    assert (mismatch.kind, mismatch.path) == ("timers", "deadline")


@pytest.mark.parametrize(
    ("step", "kind"),
    [("confirm-2", "confirm"), ("assess-v1", "assess"), ("refund", "refund"), ("a-b", "a-b")],
)
def test_the_kind_of_a_step_is_its_name_without_a_number(step: str, kind: str) -> None:
    assert get_kind(step) == kind
