"""Sentences about commands and events. Pure."""

from collections.abc import Mapping

from diptych.operations.v1.explanation_pb2 import Explanation
from google.protobuf.message import DecodeError

from contracts import streams
from contracts.event_types import EventTypes, UnknownEvent
from operations_server.explanations.audit import AuditedRequest, RefusedCall
from operations_server.explanations.chain import Entry
from operations_server.explanations.record_reader import Answer, StoredEvent
from operations_server.explanations.words import (
    describe_event,
    describe_rejection,
    name_event,
    name_sender,
    name_stream,
)
from operations_server.names import shorten_name


class EventWords:
    """Describes events in words.

    Args:
        event_types: the events of all contexts, by the names of the contexts.
    """

    def __init__(self, event_types: Mapping[str, EventTypes]) -> None:
        self._event_types = event_types

    def create_entry(self, stored: StoredEvent, depth: int) -> Entry:
        event = stored.event
        text = f"{name_event(event.type)}: {name_stream(event.stream)}, version {event.version}"
        if fields := self._describe_fields(stored):
            text += f" ({fields})"
        return Entry(event.recorded_at, Explanation.KIND_EVENT, text, event.id, depth, event.position)

    def _describe_fields(self, stored: StoredEvent) -> str:
        event = stored.event
        if not stored.is_read:
            return f"its {stored.size} bytes are too large to be shown"
        types = self._event_types.get(event.stream.partition(".")[0])
        if types is None:
            return "no installed context has this event"
        try:
            message = types.decode(event)
        except (UnknownEvent, DecodeError) as error:
            return f"it cannot be decoded: {error}"
        except Exception as error:  # an upcaster's
            return f"it cannot be read in its newest version: {error!r}"
        return describe_event(
            message, aggregate_id=streams.aggregate_id(event.stream), recorded_at=event.recorded_at
        )


def create_accepted_entry(stored: StoredEvent, depth: int) -> Entry:
    """Return the entry of the command that an event's metadata names.

    It was accepted, unless it is one of those that record events although they are rejected.
    """
    metadata = stored.event.metadata
    sender = name_sender(metadata.get("actor", ""), metadata.get("on_behalf_of"))
    rejected = metadata.get("rejected")
    outcome = f"rejected, {rejected}" if rejected else "accepted"
    text = f"{sender} sent {shorten_name(metadata.get('command', 'an unknown command'))}: {outcome}"
    return Entry(
        stored.event.recorded_at,
        Explanation.KIND_REJECTED if rejected else Explanation.KIND_ACCEPTED,
        text,
        metadata.get("causation_id", ""),
        depth,
        stored.event.position,
    )


def create_request_entry(request: AuditedRequest, answer: Answer | None, depth: int) -> Entry:
    """Return the entry of a command of the audit.

    Args:
        request: the command.
        answer: its recorded answer; None if it is not kept any more.
        depth: of the entry.
    """
    is_accepted = request.outcome == "ACCEPTED"
    sender = name_sender(request.caller, request.on_behalf_of)
    outcome = (
        "accepted"
        if is_accepted
        else "rejected, " + describe_rejection(request.outcome, answer.details if answer else {})
    )
    text = f"{sender} sent {shorten_name(request.command)} for {name_stream(request.stream)}: {outcome}"
    kind = Explanation.KIND_ACCEPTED if is_accepted else Explanation.KIND_REJECTED
    return Entry(request.recorded_at, kind, text, request.request_id, depth)


def create_answer_entry(answer: Answer, depth: int) -> Entry:
    """Return the entry of a recorded answer."""
    outcome, kind = "accepted", Explanation.KIND_ACCEPTED
    if not answer.is_accepted:
        outcome = f"rejected, {describe_rejection(answer.outcome, answer.details)}"
        kind = Explanation.KIND_REJECTED
    elif answer.versions:
        changed = ", ".join(f"{name_stream(name)} version {at}" for name, at in answer.versions.items())
        outcome += f" ({changed})"
    text = f"{name_sender(answer.caller, None)} sent {shorten_name(answer.command)}: {outcome}"
    return Entry(answer.recorded_at, kind, text, answer.request_id, depth)


def create_refused_entry(call: RefusedCall, request_id: str) -> Entry:
    service, _, method = call.method.lstrip("/").partition("/")
    sender = name_sender(call.caller, None)
    reason = describe_rejection(call.reason, call.details)
    text = f"{sender} called {method} of {service} from {call.peer}: refused, {reason}"
    return Entry(call.recorded_at, Explanation.KIND_REFUSED, text, request_id)
