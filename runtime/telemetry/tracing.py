"""Spans, behind functions that cost next to nothing while traces are off."""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from random import random

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags, Tracer

from runtime.grpc.rpc_error import RpcError

Attributes = Mapping[str, str | int | float | bool]

_TRACEPARENT = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NOTHING: AbstractContextManager[Span] = nullcontext(trace.INVALID_SPAN)
_UNSAMPLED = trace.set_span_in_context(NonRecordingSpan(SpanContext(1, 1, is_remote=False)), Context())
_tracer: Tracer | None = None
_share: float | None = None
"""The share of new traces that is sampled, None where the tracer decides."""


def use(tracer: Tracer | None, share: float | None) -> None:
    """Turn traces on, or off where there is no tracer.

    Args:
        tracer: makes the spans.
        share: of new traces that is sampled, 0 to 1; None where the tracer decides.
    """
    global _tracer, _share
    _tracer, _share = tracer, share


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
            error, RpcError
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
