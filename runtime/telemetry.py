"""Traces and metrics, behind functions that cost next to nothing until the environment asks for them.

The standard `OTEL_*` variables decide: an endpoint (`OTEL_EXPORTER_OTLP_ENDPOINT`) or an exporter
(`OTEL_TRACES_EXPORTER=otlp`, `OTEL_METRICS_EXPORTER=otlp`). Without them every function here does nothing.
"""

import os
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from random import random

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags, Tracer

from runtime.errors import Refusal, StartError
from runtime.instruments import Instruments

Attributes = Mapping[str, str | int | float | bool]

_TRACEPARENT = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NOTHING: AbstractContextManager[Span] = nullcontext(trace.INVALID_SPAN)
_UNSAMPLED = trace.set_span_in_context(NonRecordingSpan(SpanContext(1, 1, is_remote=False)), Context())
_tracer: Tracer | None = None
_share: float | None = None
"""The share of new traces that is sampled, None where the tracer decides."""
_shutdowns: list[Callable[[], None]] = []
instruments: Instruments | None = None
"""The metrics' instruments, None where metrics are off."""


def configure(service: str) -> None:
    """Set up what the environment asks for.

    Args:
        service: the resource attribute `service.name`, unless OTEL_SERVICE_NAME says otherwise.

    Raises:
        StartError: a variable asks for an exporter or a protocol that is not here.
    """
    global _tracer, _share, instruments
    traces, metrics = _wanted("TRACES"), _wanted("METRICS")
    if traces or metrics:
        from runtime import exporting  # takes a third of a second to import

        resource = exporting.resource(service)
        if traces:
            _tracer, _share, shutdown = exporting.tracer(resource)
            _shutdowns.append(shutdown)
        if metrics:
            instruments = Instruments()
            _shutdowns.append(exporting.export_metrics(resource, instruments))


def _wanted(signal: str) -> bool:
    """Return whether the environment asks for traces or metrics to be exported."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    default = "otlp" if any(os.environ.get(name) for name in endpoints) else "none"
    exporter = os.environ.get(f"OTEL_{signal}_EXPORTER") or default
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "grpc"
    if exporter not in ("otlp", "none"):
        raise StartError(f"OTEL_{signal}_EXPORTER={exporter}: only otlp and none are supported")
    if exporter == "otlp" and protocol != "grpc":
        raise StartError(f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol}: only grpc is supported")
    return exporter == "otlp"


def shutdown() -> None:
    """Export what was recorded and is not exported yet, for a few seconds at the most."""
    while _shutdowns:
        _shutdowns.pop()()


def span(
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: str | None = None,
    attributes: Attributes | None = None,
) -> AbstractContextManager[Span]:
    """Return a context manager within which this span is the current one.

    Args:
        name: the span's name, of few different values.
        kind: the span's kind.
        parent: the W3C traceparent of the span's parent; None for the current span, if there is one.
        attributes: facts known from the start.
    """
    if _tracer is None:
        return _NOTHING
    if _share is not None and (unsampled := _decided(parent)) is not None:
        return unsampled
    return _Current(_tracer.start_span(name, context_of(parent) if parent else None, kind, attributes))


def _decided(parent: str | None) -> AbstractContextManager[Span] | None:
    """Return what stands for a span of a trace that is not sampled, for which none is made; else None."""
    if parent is not None and _TRACEPARENT.fullmatch(parent):
        sampled = bool(int(parent[-1], 16) & TraceFlags.SAMPLED)
    elif parent is None and (current := trace.get_current_span()) is not trace.INVALID_SPAN:
        return None if current.get_span_context().trace_flags.sampled else _NOTHING
    else:
        sampled = random() < (_share or 0.0)  # noqa: S311 - chance, not a secret
    return None if sampled else _Unsampled()


class _Unsampled:
    """Lets all that runs within know that its trace is not sampled."""

    __slots__ = ("_token",)

    def __enter__(self) -> Span:
        self._token = attach(_UNSAMPLED)
        return trace.INVALID_SPAN

    def __exit__(self, *_: object) -> None:
        detach(self._token)


class _Current:
    """Makes a span the current one and ends it: half of what OpenTelemetry's own context manager costs."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> Span:
        self._token = attach(trace.set_span_in_context(self._span))
        return self._span

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        detach(self._token)
        if isinstance(error, Exception) and not isinstance(
            error, Refusal
        ):  # a refusal is an answer, not a fault
            self._span.set_status(StatusCode.ERROR, type(error).__name__)
        self._span.end()


def record_span(
    name: str,
    *,
    parent: str | None,
    start_ns: int,
    end_ns: int,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Attributes | None = None,
) -> None:
    """Record a span that is over, as a child; does nothing unless its parent was sampled.

    Args:
        name: the span's name, of few different values.
        parent: the W3C traceparent of the span's parent.
        start_ns: when it began, in nanoseconds since 1970.
        end_ns: when it ended, in nanoseconds since 1970.
        kind: the span's kind.
        attributes: facts about it.
    """
    if _tracer is not None and parent is not None and parent.endswith("-01"):
        _tracer.start_span(name, context_of(parent), kind, attributes, start_time=start_ns).end(end_ns)


def context_of(parent: str) -> Context:
    """Return the context of a remote parent; an empty one where the traceparent is not valid."""
    if not (parts := _TRACEPARENT.fullmatch(parent)):
        return Context()
    trace_id, span_id, flags = (int(part, 16) for part in parts.groups())
    remote = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return trace.set_span_in_context(NonRecordingSpan(remote), Context())


def tracer() -> Tracer | None:
    """Return the tracer, or None where traces are off."""
    return _tracer


def current_traceparent() -> str | None:
    """Return the W3C traceparent of the current span, or None where there is none or it is not sampled."""
    if _tracer is None:
        return None
    here = trace.get_current_span().get_span_context()
    return f"00-{here.trace_id:032x}-{here.span_id:016x}-01" if here.trace_flags.sampled else None


def command_processed(command_type: str, success: bool, seconds: float) -> None:
    """Count a command that was answered, accepted or not, and the time that it took."""
    if instruments is not None:
        instruments.command_processed(command_type, success, seconds)


def event_processed(event_type: str, success: bool) -> None:
    """Count an event that a projection applied, or failed to apply."""
    if instruments is not None:
        instruments.event_processed(event_type, success)


def read_model_lag(model_type: str, seconds: float) -> None:
    """Record the time from an event's recording to its effect in a view."""
    if instruments is not None:
        instruments.read_model_lag(model_type, seconds)


def outbox_pending(events: int) -> None:
    """Record how many events wait for being published."""
    if instruments is not None:
        instruments.outbox_pending(events)
