"""Span contexts of the SDK from traceparents, and the other way round."""

from collections.abc import Iterable

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, TraceFlags

from runtime.telemetry import trace_context


def parse_span_context(traceparent: str | None) -> SpanContext | None:
    """Return the context of another span; None if the traceparent is malformed."""
    if traceparent is None or not (parts := trace_context.TRACEPARENT.fullmatch(traceparent)):
        return None
    trace_id, span_id, flags = (int(part, 16) for part in parts.groups())
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))


def create_context(parent: str) -> Context:
    """Return the context of a parent; an empty one, which begins a trace, if the traceparent is malformed."""
    context = parse_span_context(parent)
    return Context() if context is None else trace.set_span_in_context(NonRecordingSpan(context), Context())


def create_links(traceparents: Iterable[str | None]) -> list[Link]:
    return [Link(context) for each in traceparents if (context := parse_span_context(each)) is not None]


def format_traceparent(span: Span) -> str:
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"
