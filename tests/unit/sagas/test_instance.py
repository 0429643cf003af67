"""A saga instance sends declared requests only."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from contracts.envelope import RecordedEvent
from process_manager.groups.assignment import assign
from process_manager.groups.instance import Instance
from process_manager.saga import (
    AbortRequested,
    EventReceived,
    Input,
    Reaction,
    RetryRequested,
    Send,
    StepSucceeded,
    TimerFired,
)
from process_manager.subscriptions import Subscription
from tests.support.ledger.events import EVENTS
from tests.support.ledger.sagas import COLLECTION
from tests.support.ledger.stubs import commands, events_v2

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
WRITTEN = events_v2.ChequeWritten(cheque_id="c", account_id="a", amount=5, writer="ada")
UNDECLARED = replace(COLLECTION, requests=(commands.DepositRequest,))


def test_a_declared_request_becomes_a_step() -> None:
    instance = Instance(COLLECTION, "c", COLLECTION.initial)
    instance.react_to(EventReceived(WRITTEN, 1, "ledger.cheque.c", AT))
    (step,) = instance.steps
    assert step.method == "/acme.ledger.v1.CommandService/CashCheque"


def test_a_request_that_the_saga_does_not_declare_fails() -> None:
    instance = Instance(UNDECLARED, "c", UNDECLARED.initial)
    with pytest.raises(ValueError, match=r"does not declare acme\.ledger\.v1\.CashChequeRequest"):
        instance.react_to(EventReceived(WRITTEN, 1, "ledger.cheque.c", AT))
    assert (instance.state, instance.steps, instance.timers) == (UNDECLARED.initial, [], {})


def test_an_undeclared_request_blocks_the_saga_at_its_event() -> None:
    instance = Instance(UNDECLARED, "c", UNDECLARED.initial)
    event = RecordedEvent(
        "ledger.cheque.c", 1, WRITTEN.DESCRIPTOR.full_name, WRITTEN.SerializeToString(), AT, 1, {}
    )
    assert not instance.receive_event(event, AT)
    assert "does not declare" in instance.status.blocked_reason
    assert instance.version == 0


@pytest.mark.parametrize("action", [RetryRequested(AT), AbortRequested("enough", AT)])
def test_an_operators_action_permits_one_more_attempt_at_once_or_later(action: Input) -> None:
    def react(state: Any, input_: Input) -> Reaction[Any]:
        acts = isinstance(input_, RetryRequested | AbortRequested)
        return Reaction(state, () if acts else [Send("cash", commands.CashChequeRequest(cheque_id="c"))])

    instance = Instance(replace(COLLECTION, react=react), "c", COLLECTION.initial)
    fired, answered = TimerFired("timer", AT), StepSucceeded("cash", None, AT)
    instance.react_to(fired)
    for later in (answered, fired):
        with pytest.raises(ValueError, match="cash was sent before"):
            instance.react_to(later)
        instance.react_to(action)
        instance.react_to(later)
    with pytest.raises(ValueError, match="cash was sent before"):
        instance.react_to(fired)
    assert [step.attempt for step in instance.steps] == [1, 2, 3]
    assert len({step.request_id for step in instance.steps}) == 3


class Mute(Exception):
    """An error that cannot be described."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_an_error_without_a_text_blocks_the_saga_at_its_event() -> None:
    def fail(*_: object) -> Any:
        raise Mute

    saga = replace(COLLECTION, react=fail)
    instance = Instance(saga, "c", saga.initial)
    event = RecordedEvent(
        "ledger.cheque.c", 1, WRITTEN.DESCRIPTOR.full_name, WRITTEN.SerializeToString(), AT, 1, {}
    )
    assert not instance.receive_event(event, AT)
    line = fail.__code__.co_firstlineno + 1
    place = f"[tests/unit/sagas/test_instance.py:{line} in fail]"
    assert instance.failed_input == f"version 1 failed: Mute {place}"
    keyed = replace(
        saga, subscribes_to=[Subscription("ledger.cheque", EVENTS, {events_v2.ChequeWritten: fail})]
    )
    assert assign(keyed, None, [event]).failures == {"ledger.cheque.c": (1, f"Mute {place}")}


def test_a_saga_that_cannot_describe_its_initial_state_is_no_saga() -> None:
    def fail(_: object) -> Any:
        raise RuntimeError("no status")

    with pytest.raises(ValueError, match=r"ledger\.collection: describe_status fails on the initial state"):
        replace(COLLECTION, describe_status=fail)
