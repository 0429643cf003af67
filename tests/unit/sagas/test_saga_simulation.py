"""The simulation runs any sagas on the toy ledger, and fails on mistakes of a saga's author."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from diptych_testing.saga_simulation import SagaSimulation
from process_manager.saga import EventReceived, Input, Reaction, Saga, SagaStatus, Send, Timer
from runtime.process.start_error import StartError
from tests.support.harness.account_watch import ACCOUNT_WATCH
from tests.support.ledger.rules import CONTEXT
from tests.support.ledger.rules.messages import CashCheque, Deposit, WriteCheque
from tests.support.ledger.sagas import COLLECTION, TIMEOUT, Collection
from tests.support.ledger.stubs import commands, events

WRITE = WriteCheque("c", "a", 5)


def simulate(*sagas: Saga[Any]) -> SagaSimulation:
    """Return a simulation in which the cheque `c` over 5 was written against the account `a`."""
    simulation = SagaSimulation(sagas, [CONTEXT])
    simulation.execute(Deposit("a", 9), WRITE)
    return simulation


def find_collection(simulation: SagaSimulation) -> Collection:
    state = simulation.find_instance(COLLECTION.name, "c").state
    assert isinstance(state, Collection)
    return state


def test_steps_are_executed_by_the_rules_of_the_context() -> None:
    simulation = simulate(COLLECTION)
    simulation.settle()
    assert find_collection(simulation).state == "CASHED"
    assert simulation.world.state("ledger.account.a").balance == 4
    assert [sent.name for sent in simulation.sent] == ["cash"]
    assert simulation.timers == {}


def test_two_sagas_follow_one_stream_and_one_saga_two_streams() -> None:
    simulation = simulate(COLLECTION, ACCOUNT_WATCH)
    simulation.settle()
    assert find_collection(simulation).state == "CASHED"
    watch = simulation.find_instance(ACCOUNT_WATCH.name, "a")
    assert sorted(watch.state.received) == [
        ("ledger.account.a", 1),
        ("ledger.account.a", 2),
        ("ledger.account.a", 3),
        ("ledger.cheque.c", 1),
    ]
    assert {sent.name for sent in simulation.sent} == {"cash", "deposit-c-1"}


def test_the_test_chooses_the_order_across_streams() -> None:
    simulation = simulate(ACCOUNT_WATCH)
    assert simulation.deliver_event(stream="ledger.cheque.c")
    assert not simulation.deliver_event(stream="ledger.cheque.c")
    assert not simulation.deliver_event(saga=COLLECTION.name)
    assert simulation.deliver_event(saga=ACCOUNT_WATCH.name)
    watch = simulation.find_instance(ACCOUNT_WATCH.name, "a")
    assert watch.state.received == (("ledger.cheque.c", 1), ("ledger.account.a", 1))


def test_a_lost_reply_executes_the_request_once() -> None:
    simulation = simulate(COLLECTION)
    assert not simulation.lose_reply()
    simulation.deliver_event()
    assert simulation.lose_reply()
    assert simulation.lose_reply()
    assert (find_collection(simulation).state, len(simulation.pending)) == ("CASHING", 1)
    simulation.settle()
    assert simulation.world.state("ledger.account.a").balance == 4


def test_a_rejected_step_waits_for_a_retry() -> None:
    simulation = simulate(COLLECTION)
    simulation.rejections["cash"] = "TOO_LATE"
    simulation.settle()
    assert simulation.find_instance(COLLECTION.name, "c").status.blocked_reason == "TOO_LATE"
    simulation.rejections.clear()
    simulation.retry(COLLECTION.name, "c")
    simulation.settle()
    assert find_collection(simulation).state == "CASHED"


def test_a_rule_of_the_context_rejects_a_step() -> None:
    simulation = simulate(COLLECTION)
    simulation.deliver_event()
    simulation.execute(CashCheque("c"))
    assert simulation.answer_step("cash")
    assert find_collection(simulation).reason == "CHEQUE_WORTHLESS"
    assert not simulation.answer_step("cash")


def test_timers_fire_when_their_time_has_come() -> None:
    simulation = simulate(COLLECTION)
    simulation.deliver_event()
    simulation.advance_time(TIMEOUT - timedelta(seconds=1))
    assert find_collection(simulation).state == "CASHING"
    simulation.advance_time(timedelta(seconds=1))
    assert find_collection(simulation).state == "GIVEN_UP"


def test_an_operator_aborts() -> None:
    simulation = simulate(COLLECTION)
    simulation.deliver_event()
    simulation.abort(COLLECTION.name, "c", "enough")
    assert (find_collection(simulation).state, simulation.timers) == ("GIVEN_UP", {})


def test_sagas_without_an_end_do_not_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diptych_testing.saga_simulation.MAX_INPUTS", 50)

    def react(state: Collection, input_: Input) -> Reaction[Collection]:
        state = replace(state, reason=state.reason + "x")
        request = commands.DepositRequest(account_id="b", amount=1)
        return Reaction(state, [Send(f"deposit-{len(state.reason)}", request)])

    with pytest.raises(AssertionError, match="still send steps after 50 inputs"):
        simulate(replace(COLLECTION, react=react, requests=(commands.DepositRequest,))).settle()


# Mistakes.

_calls = 0


def react_differently(state: Collection, input_: Input) -> Reaction[Collection]:
    global _calls
    _calls += 1
    return Reaction(replace(state, reason=str(_calls)))


def react_by_the_clock(state: Collection, input_: Input) -> Reaction[Collection]:
    return Reaction(state, timers=[Timer("timeout", datetime.now(input_.at.tzinfo))])


def change_the_event(state: Collection, input_: Input) -> Reaction[Collection]:
    if isinstance(input_, EventReceived):
        input_.event.Clear()
    return Reaction(state)


@pytest.mark.parametrize(
    ("saga", "message"),
    [
        (replace(COLLECTION, react=react_differently), "react is not pure"),
        (replace(COLLECTION, react=react_by_the_clock), "react is not pure"),
        (replace(COLLECTION, react=change_the_event), "react changed its input"),
        (replace(COLLECTION, requests=()), r"does not declare acme.ledger.v1.CashChequeRequest"),
        (
            replace(COLLECTION, react=lambda state, _: Reaction(replace(state, reason="a\0b"))),
            "holds U\\+0000",
        ),
        (
            replace(COLLECTION, react=lambda state, _: Reaction(replace(state, reason=object()))),
            "cannot be stored as JSON",
        ),
        (
            replace(COLLECTION, react=lambda state, _: Reaction(replace(state, written_at=["x"]))),
            "cannot be stored as JSON",
        ),
    ],
    ids=["counts", "reads the clock", "changes the event", "undeclared", "NUL", "object", "another type"],
)
def test_a_mistake_in_react_fails(saga: Saga[Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        simulate(saga).settle()


@dataclass(frozen=True)
class Lossy:
    """A state that JSON changes."""

    numbers: Any = field(default_factory=lambda: (1, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saga: replace(saga, requests=(events.ChequeCashed,)), "no method takes"),
        (
            lambda saga: replace(
                saga, initial=Lossy(), describe_status=lambda _: SagaStatus("ANY", ended=False)
            ),
            "JSON changes the state",
        ),
    ],
)
def test_a_mistake_in_the_definition_fails(change: Callable[[Any], Saga[Any]], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        simulate(change(COLLECTION))


def test_a_method_without_an_access_rule_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_no_rule(_: object) -> tuple[str, ...]:
        raise StartError("CashCheque has no option diptych.access.v1.rule with a scope")

    monkeypatch.setattr("diptych_testing.checked_react.scopes_of", find_no_rule)
    with pytest.raises(AssertionError, match="has no option"):
        simulate(COLLECTION)


def test_a_method_that_no_context_has_fails() -> None:
    simulation = simulate(COLLECTION)
    simulation._executor._commands = {}
    with pytest.raises(AssertionError, match="nothing executes acme"):
        simulation.settle()
