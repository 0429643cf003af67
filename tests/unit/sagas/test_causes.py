"""A step has the correlation, the causation and the trace of the input that caused it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from contracts.envelope import RecordedEvent
from process_manager.groups.cause import Cause
from process_manager.groups.instance import Instance
from process_manager.groups.step import Step
from process_manager.saga import Input, Reaction, RetryRequested, Send, StepSucceeded, TimerFired
from tests.support.ledger.sagas import COLLECTION
from tests.support.ledger.stubs import commands, events, events_v2

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STREAM = "ledger.cheque.c"


def trace_of(caller: str) -> str:
    return f"00-{caller.encode().hex():0>32}-{1:016x}-01"


def received(message: Any, version: int, caller: str, causation_id: str = "r") -> RecordedEvent:
    metadata = {"correlation_id": caller, "causation_id": causation_id, "traceparent": trace_of(caller)}
    type_name, data = message.DESCRIPTOR.full_name, message.SerializeToString()
    return RecordedEvent(STREAM, version, type_name, data, AT, version, metadata)


def written(caller: str) -> RecordedEvent:
    return received(events_v2.ChequeWritten(cheque_id="c", account_id="a", amount=5), 1, caller)


def voided(version: int, caller: str, causation_id: str = "r") -> RecordedEvent:
    return received(events.ChequeVoided(cheque_id="c"), version, caller, causation_id)


@dataclass(frozen=True)
class Inputs:
    number: int = 0


def react(inputs: Inputs, _input: Input) -> Reaction[Inputs]:
    """Send a step for each input."""
    step = Send(f"step-{inputs.number}", commands.CashChequeRequest(cheque_id="c"))
    return Reaction(Inputs(inputs.number + 1), [step])


SAGA = replace(
    COLLECTION,
    initial=Inputs(),
    react=react,
    describe_status=lambda _: COLLECTION.describe_status(COLLECTION.initial),
)


def follow(*inputs: RecordedEvent | Input) -> Sequence[Step]:
    """Return the steps after these inputs."""
    instance = Instance(SAGA, "c", SAGA.initial)
    for each in inputs:
        if isinstance(each, RecordedEvent):
            assert instance.receive_event(each, AT), instance.failed_input
        elif isinstance(each, RetryRequested):
            instance.react_to(each, instance.first_cause)
        else:
            instance.react_to(each)
    return instance.steps


def cause_of(event: RecordedEvent) -> Cause:
    return Cause(event.metadata["correlation_id"], event.id, event.metadata["traceparent"])


def test_the_step_of_an_event_has_the_events_ids() -> None:
    event = written("alice")
    assert [step.cause for step in follow(event)] == [cause_of(event)]


def test_the_step_of_a_reply_continues_the_cause_of_the_replied_step() -> None:
    event = written("alice")
    assert [step.cause for step in follow(event, StepSucceeded("step-0", None, AT))] == [cause_of(event)] * 2


def test_a_reply_behind_another_callers_event_continues_that_event() -> None:
    event = voided(2, "bob")
    steps = follow(written("alice"), event, StepSucceeded("step-0", None, AT))
    assert [step.cause for step in steps[1:]] == [cause_of(event)] * 2


def test_an_event_of_an_own_step_does_not_supersede_a_newer_cause() -> None:
    first, _ = follow(written("alice"), voided(2, "bob"))
    late = voided(3, "alice", str(first.request_id))
    cancelled = voided(2, "bob")
    steps = follow(written("alice"), cancelled, late, StepSucceeded("step-0", None, AT))
    assert [step.cause for step in steps[1:]] == [cause_of(cancelled)] * 3


def test_the_first_caller_may_act_again_after_another_one() -> None:
    again = voided(3, "alice", "another request")
    steps = follow(written("alice"), voided(2, "bob"), again)
    assert steps[-1].cause == cause_of(again)


def test_an_operators_request_continues_the_beginning_of_the_saga() -> None:
    steps = follow(written("alice"), voided(2, "bob"), RetryRequested(AT), StepSucceeded("step-0", None, AT))
    expected = Cause("alice", "ledger.collection/c", trace_of("alice"))
    assert [step.cause for step in steps[2:]] == [expected] * 2


def test_an_input_without_a_cause_of_its_own_continues_the_beginning_of_the_saga() -> None:
    instance = Instance(SAGA, "c", SAGA.initial, correlation_id="alice", traceparent=trace_of("alice"))
    instance.react_to(TimerFired("timeout", AT))
    assert instance.steps[0].cause == Cause("alice", "ledger.collection/c", trace_of("alice"))


def test_an_input_that_fails_leaves_the_latest_cause() -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("a bug")

    instance = Instance(SAGA, "c", SAGA.initial)
    assert instance.receive_event(written("alice"), AT)
    instance.saga = replace(SAGA, react=fail)
    assert not instance.receive_event(voided(2, "bob"), AT)
    assert instance.latest_cause == cause_of(written("alice"))
