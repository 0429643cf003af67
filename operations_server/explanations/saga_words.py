"""Sentences about sagas: their states, steps, timers, and operators' acts. Pure."""

from collections.abc import Iterable
from datetime import datetime
from shlex import quote

from diptych.operations.v1.explanation_pb2 import Explanation

from operations_server.explanations.chain import Entry
from operations_server.explanations.saga_facts import SagaFacts
from operations_server.explanations.words import MAX_VALUE_LENGTH, cut
from operations_server.names import format_time
from process_manager.queries.saga_records import OperatorAction, SentStep


def list_step_entries(
    facts: SagaFacts, until: datetime | None, depth: int
) -> Iterable[tuple[SentStep, Entry]]:
    """Yield the steps that had been decided by a time, each with its entry."""
    name = " ".join(facts.key)
    for number, step in enumerate(facts.details.steps):
        cause = f" because of {step.causation_id}" if step.causation_id else ""
        method, outcome = _describe_method(step.method), _describe_outcome(step, until)
        text = f"{name} sent {step.step} ({method}){cause}: {outcome}"
        entry = Entry(step.decided_at, Explanation.KIND_SAGA, text, str(step.request_id), depth, number)
        yield step, entry


def _describe_method(method: str) -> str:
    service, _, name = method.lstrip("/").partition("/")
    return f"{name} to {service}"


def _describe_outcome(step: SentStep, until: datetime | None) -> str:
    if step.outcome is None or step.answered_at is None or (until is not None and step.answered_at > until):
        if until is not None and step.outcome is not None:
            return "no answer by then"
        tries = f"no answer after {_count(step.tries, 'try', 'tries')}" if step.tries else "not sent yet"
        denied = ", denied for the process manager's token or its scopes" if step.denied else ""
        return tries + denied + (f": {cut(step.error, 300)}" if step.error else "")
    answered = f"at {format_time(step.answered_at)}"
    if step.tries > 1:
        answered += f", after {step.tries} tries"
    attempt = f", attempt {step.attempt}" if step.attempt > 1 else ""
    return f"{'accepted' if step.outcome == 'OK' else f'rejected, {step.outcome},'} {answered}{attempt}"


def list_timer_entries(facts: SagaFacts, depth: int) -> Iterable[tuple[str, Entry]]:
    for name, due_at in facts.details.timers.items():
        text = f"timer {name} of {' '.join(facts.key)} fires at {format_time(due_at)}"
        yield name, Entry(due_at, Explanation.KIND_SAGA, text, depth=depth)


def list_act_entries(facts: SagaFacts, depth: int) -> Iterable[Entry]:
    for number, action in enumerate(facts.details.operator_actions):
        text = f"{describe_act(action)} of {' '.join(facts.key)}"
        text += f": {cut(action.reason, 500)}" if action.reason else ""
        yield Entry(action.at, Explanation.KIND_ACT, text, depth=depth, position=number)


def describe_act(action: OperatorAction) -> str:
    return f"{cut(action.operator, MAX_VALUE_LENGTH)} asked for the {action.action}"


def create_state_entry(facts: SagaFacts, now: datetime, depth: int) -> Entry:
    """Return the entry of an instance's present state."""
    row, text = facts.details.row, describe_state(facts, now)
    return Entry(row.status_since, Explanation.KIND_SAGA, text, facts.own_stream, depth)


def describe_state(facts: SagaFacts, now: datetime) -> str:
    """Return the state of an instance, what it waits for, and what an operator may do."""
    row = facts.details.row
    text = f"{row.saga} {row.id} is {row.status}"
    if row.blocked_reason:
        arguments = f"{quote(row.id)} --saga {row.saga}"
        retry, abort = (
            f"diptych sagas retry {arguments} --reason …",
            f"diptych sagas abort {arguments} --reason …",
        )
        cause = f"blocked: {cut(row.blocked_reason, 500)}"
        if row.unreadable:
            return f"{text}, {cause}; it goes on with a release that can read it"
        return f"{text}, {cause}; when the cause is mended: {retry}; to undo it: {abort}"
    if row.ended:
        return f"{text}, its end"
    text += f", waits for {cut(row.waiting_for, 300)}" if row.waiting_for else ""
    return text + (f", overdue since {format_time(row.due_at)}" if row.due_at and row.due_at < now else "")


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
