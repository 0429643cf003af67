"""Spans of events that a projection has applied, and of the calls of Redis that wrote them."""

from contextvars import ContextVar
from time import time_ns

from opentelemetry.trace import SpanKind

from contracts import streams
from contracts.envelope import RecordedEvent
from runtime.telemetry import tracing

_PROCESS = {
    "messaging.system": "nats",
    "messaging.operation.name": "process",
    "messaging.operation.type": "process",
    "messaging.destination.name": streams.JETSTREAM,
    "messaging.destination.template": "diptych.events.{partition}.{stream}",
}
_WRITE = {"db.system.name": "redis", "db.operation.name": "EVALSHA"}
_WRITTEN: ContextVar[tuple[int, int] | None] = ContextVar("written", default=None)
"""When the task's last write began and ended, in nanoseconds since 1970."""


def note_write(start_ns: int) -> None:
    """Note that a write of this task, which began then, has ended."""
    _WRITTEN.set((start_ns, time_ns()))


def record_event(
    model: str, projection: str, event: RecordedEvent, start_ns: int, end_ns: int, count: int
) -> None:
    """Record the span of an event in a view that was written just now, if the event's trace is sampled.

    Args:
        model: the type of the view.
        projection: its projection.
        event: the event.
        start_ns: when its fold began, in nanoseconds since 1970.
        end_ns: when the view was written.
        count: the events that were written together.
    """
    if (parent := event.metadata.get("traceparent")) is None:
        return
    attributes = {
        **_PROCESS,
        "messaging.consumer.group.name": projection,
        "messaging.message.id": event.id,
        "diptych.model_type": model,
    }
    span = tracing.record_span(
        f"process {streams.JETSTREAM}",
        parent=parent,
        start_ns=start_ns,
        end_ns=end_ns,
        kind=SpanKind.CONSUMER,
        attributes=attributes | ({"messaging.batch.message_count": count} if count > 1 else {}),
    )
    if span is not None and (written := _WRITTEN.get()) is not None:
        start, end = written
        tracing.record_span(
            "EVALSHA", parent=span, start_ns=start, end_ns=end, kind=SpanKind.CLIENT, attributes=_WRITE
        )
