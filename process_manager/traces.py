"""Spans of sagas: of the events that they receive, and of the calls of their steps.

How it works. Both are children of the span of the command that caused them, in its trace, and only if that is
sampled. A received event has a span for each instance that took it in; one that is delivered again has none,
since an instance passes it over. The events of sagas with deadlines have none: nothing is kept of a deadline
that has ended, so nobody can tell whether its events are delivered again. A step's span has a link to the
trace in which its saga began.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from time import time_ns
from typing import Any

from opentelemetry.trace import Span, SpanKind

from contracts import streams
from contracts.envelope import RecordedEvent
from process_manager.dispatch.step_client import StepReply
from process_manager.dispatch.targets import target_of
from process_manager.groups.instance import Instance
from process_manager.postgres.due_work import DueStep
from process_manager.saga import Saga
from runtime.telemetry import tracing
from runtime.telemetry.trace_context import is_sampled

_ATTRIBUTES = {
    "messaging.system": "nats",
    "messaging.operation.name": "process",
    "messaging.operation.type": "process",
    "messaging.destination.name": streams.JETSTREAM,
    "messaging.destination.template": "diptych.events.{partition}.{stream}",
}
_WRITE = {"db.system.name": "postgresql", "db.operation.name": "UPDATE", "db.collection.name": "sagas"}


class EventTraces:
    """Records the spans of received events."""

    def __init__(self) -> None:
        self._received: dict[tuple[str, str], tuple[int, int]] = {}
        """By saga and event: when it was received, and how many were received with it."""

    @contextmanager
    def receive(self, saga: Saga[Any], events: Sequence[RecordedEvent]) -> Iterator[None]:
        """Note the sampled events among those that are delivered in the block."""
        traced = events if saga.deadline is None else ()
        keys = [(saga.name, each.id) for each in traced if is_sampled(each.metadata.get("traceparent"))]
        self._received.update(dict.fromkeys(keys, (time_ns(), len(events))))
        try:
            yield
        finally:
            for key in keys:
                self._received.pop(key, None)

    def record(self, instances: Collection[Instance], written_ns: tuple[int, int]) -> None:
        """Record the spans of the events that instances have taken in.

        Args:
            instances: those that were written.
            written_ns: when the statement began that wrote them, and when it ended.
        """
        if not self._received:
            return
        for instance in instances:
            for event in instance.received:
                if (received := self._received.get((instance.saga.name, event.id))) is not None:
                    record_event(instance.saga.name, instance.id, event, *received, written_ns)


def record_event(
    saga: str, id_: str, event: RecordedEvent, start_ns: int, count: int, written_ns: tuple[int, int]
) -> None:
    """Record the span of a received event, and that of the statement that stored its effects."""
    attributes = {
        **_ATTRIBUTES,
        "messaging.consumer.group.name": saga,
        "messaging.message.id": event.id,
        "diptych.saga": saga,
        "diptych.saga.id": id_,
    }
    span = tracing.record_span(
        f"process {streams.JETSTREAM}",
        parent=event.metadata.get("traceparent"),
        start_ns=start_ns,
        end_ns=written_ns[1],
        kind=SpanKind.CONSUMER,
        attributes=attributes | ({"messaging.batch.message_count": count} if count > 1 else {}),
    )
    tracing.record_span(
        "UPDATE sagas",
        parent=span,
        start_ns=written_ns[0],
        end_ns=written_ns[1],
        kind=SpanKind.CLIENT,
        attributes=_WRITE,
    )


def start_call(step: DueStep) -> AbstractContextManager[Span]:
    """Return the context manager of the span of a step's call."""
    began = step.began_traceparent or ""
    is_own = began[:35] == (step.traceparent or "")[:35]
    return tracing.span(
        step.method[1:],
        kind=SpanKind.CLIENT,
        parent=step.traceparent or "",  # a step without a trace begins none
        attributes={
            "rpc.system.name": "grpc",
            "rpc.method": step.method[1:],
            "diptych.saga": step.saga,
            "diptych.saga.id": step.id,
            "diptych.step": step.step,
            "diptych.step.attempt": step.attempt,
            "diptych.step.try": step.tries + 1,
            "diptych.step.target": target_of(step.method),
        },
        links=() if is_own else (began,),
    )


def describe_reply(span: Span, reply: StepReply) -> None:
    """Describe the answer to a step in the span of its call; one without an answer has failed."""
    span.set_attribute("diptych.outcome", reply.reason or "OK")
    if not reply.reason:
        span.set_attribute("rpc.response.status_code", "OK")
