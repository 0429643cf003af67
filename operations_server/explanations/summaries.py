"""One sentence about a subject: its state, and what it waits for. Pure."""

from collections.abc import Sequence
from datetime import datetime

from operations_server.explanations.audit import AuditedRequest, RefusedCall
from operations_server.explanations.followers import Followed
from operations_server.explanations.record_reader import StoredEvent
from operations_server.explanations.saga_facts import SagaFacts
from operations_server.explanations.saga_words import describe_state
from operations_server.explanations.words import (
    describe_rejection,
    name_event,
    name_sender,
    name_stream,
)
from operations_server.names import format_time, shorten_name


def describe_stream(
    latest: StoredEvent, found: Followed, now: datetime, until: datetime | None, waits: Sequence[str] = ()
) -> str:
    """Return an aggregate's last event by name, its sagas, and its parked views.

    Args:
        latest: its last event as of the moment.
        found: the sagas and views around it.
        now: by PostgreSQL's clock.
        until: the moment; None for now.
        waits: what the last event waits for.
    """
    event = latest.event
    text = (
        f"{name_event(event.type)} at {format_time(event.recorded_at)}, version {event.version} of"
        f" {name_stream(event.stream)}, by {_name_command(latest)}"
    )
    if until is not None:
        return f"as of {format_time(until)}: {text}"
    parts = [
        text,
        *waits,
        *(_describe_saga(facts, now) for facts in found.instances if _is_about(facts, latest)),
    ]
    parts += [f"{view.projection} is parked: {view.parked_error}" for view in found.parked]
    return "; ".join(parts)


def _is_about(facts: SagaFacts, latest: StoredEvent) -> bool:
    return facts.own_stream == latest.event.stream


def _describe_saga(facts: SagaFacts, now: datetime) -> str:
    rejected = [step for step in facts.details.steps if step.outcome not in (None, "OK")]
    text = describe_state(facts, now)
    return f"{text}; its step {rejected[-1].step} was rejected, {rejected[-1].outcome}" if rejected else text


def describe_event(stored: StoredEvent) -> str:
    """Return the command that caused an event."""
    event = stored.event
    text = f"{name_event(event.type)}, version {event.version} of {name_stream(event.stream)}"
    return f"{text}: caused by {_name_command(stored)} at {format_time(event.recorded_at)}"


def _name_command(stored: StoredEvent) -> str:
    metadata = stored.event.metadata
    command = shorten_name(metadata.get("command", "an unknown command"))
    return f"{command} of {name_sender(metadata.get('actor', ''), metadata.get('on_behalf_of'))}"


def describe_request(request: AuditedRequest) -> str:
    """Return the outcome of a command."""
    outcome = "accepted" if request.outcome == "ACCEPTED" else f"rejected, {request.outcome}"
    sender = name_sender(request.caller, request.on_behalf_of)
    return (
        f"{shorten_name(request.command)} of {sender} for {name_stream(request.stream)}: {outcome} at"
        f" {format_time(request.recorded_at)}, {request.milliseconds:.1f} ms after it arrived"
    )


def describe_refused(call: RefusedCall) -> str:
    """Return why a call was refused before it was decided."""
    method, sender = call.method.rpartition("/")[2], name_sender(call.caller, None)
    reason = describe_rejection(call.reason, call.details)
    return f"{method} of {sender}: refused before it was decided at {format_time(call.recorded_at)}, {reason}"
