"""Functions that create spans, at almost no cost while traces are off.

How it works. Sampling is decided where a trace begins, before anything is allocated for it.

- `span` with a traceparent follows the caller's decision. Without one it follows the decision of the current
  span; without either it samples at random, with the configured ratio.
- The tracer creates a sampled span. In an unsampled trace no span is created: `_Unsampled` puts one shared,
  unsampled span context in place, so that spans within it and `current_traceparent` see the decision.
- With a ratio of None the tracer decides for every span.
"""

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
_RECEIVED_TRACEPARENT = re.compile(
    "([0-9a-f]{2})-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(-.*)?"
)
"""The grammar of W3C Trace Context: the version, the ids and flags, and what later versions may append."""
_NO_SPAN: AbstractContextManager[Span] = nullcontext(trace.INVALID_SPAN)
_UNSAMPLED = trace.set_span_in_context(NonRecordingSpan(SpanContext(1, 1, is_remote=False)), Context())
_tracer: Tracer | None = None
_ratio: float | None = None


def configure(tracer: Tracer | None, ratio: float | None) -> None:
    """Switch traces on, or off if there is no tracer.

    Args:
        tracer: creates the spans.
        ratio: the ratio of new traces to sample, 0 to 1; None if the tracer samples.
    """
    global _tracer, _ratio
    _tracer, _ratio = tracer, ratio


def span(
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: str | None = None,
    attributes: Attributes | None = None,
) -> AbstractContextManager[Span]:
    """Return a context manager that starts a span and makes it the current one.

    Args:
        name: the span's name, from a small set of names.
        kind: the span's kind.
        parent: the W3C traceparent of the parent; None for the current span, if there is one.
        attributes: attributes that the span has from its start.
    """
    if _tracer is None:
        return _NO_SPAN
    if _ratio is not None and (substitute := _unsampled_substitute(parent)) is not None:
        return substitute
    return _CurrentSpan(_tracer.start_span(name, context_from(parent) if parent else None, kind, attributes))


def _unsampled_substitute(parent: str | None) -> AbstractContextManager[Span] | None:
    """Return a substitute for the span if its trace is not sampled, or None if it is."""
    if parent is not None and _TRACEPARENT.fullmatch(parent):
        sampled = bool(int(parent[-1], 16) & TraceFlags.SAMPLED)
    elif parent is None and (current := trace.get_current_span()) is not trace.INVALID_SPAN:
        return None if current.get_span_context().trace_flags.sampled else _NO_SPAN
    else:
        sampled = random() < (_ratio or 0.0)  # noqa: S311 - chance, not a secret
    return None if sampled else _Unsampled()


class _Unsampled:
    """Marks everything within it as part of an unsampled trace."""

    __slots__ = ("_token",)

    def __enter__(self) -> Span:
        self._token = attach(_UNSAMPLED)
        return trace.INVALID_SPAN

    def __exit__(self, *_: object) -> None:
        detach(self._token)


class _CurrentSpan:
    """Makes a span the current one and ends it, at half the cost of OpenTelemetry's own context manager."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> Span:
        self._token = attach(trace.set_span_in_context(self._span))
        return self._span

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        detach(self._token)
        # An RpcError is an answer, not a fault; `runtime.grpc.telemetry` sets the server span's status.
        if isinstance(error, Exception) and not isinstance(error, RpcError):
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
    """Record a finished span, provided that its parent was sampled.

    Args:
        name: the span's name, from a small set of names.
        parent: the W3C traceparent of the parent.
        start_ns: start in nanoseconds since 1970.
        end_ns: end in nanoseconds since 1970.
        kind: the span's kind.
        attributes: the span's attributes.
    """
    if _tracer is not None and parent is not None and parent.endswith("-01"):
        _tracer.start_span(name, context_from(parent), kind, attributes, start_time=start_ns).end(end_ns)


def context_from(parent: str) -> Context:
    """Return the context of a remote parent, or an empty one if the traceparent is malformed."""
    if not (parts := _TRACEPARENT.fullmatch(parent)):
        return Context()
    trace_id, span_id, flags = (int(part, 16) for part in parts.groups())
    remote = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return trace.set_span_in_context(NonRecordingSpan(remote), Context())


def parse_traceparent(value: str) -> str | None:
    """Return a received traceparent as one of version 00; None if it is malformed."""
    if (parts := _RECEIVED_TRACEPARENT.fullmatch(value)) is None:
        return None
    version, ids, appended = parts.groups()
    return None if version == "ff" or (version == "00" and appended) else f"00-{ids}"


def log_fields(traceparent: str | None) -> Mapping[str, str]:
    """Return the fields of a log line about work of another process's trace; none if it is not sampled."""
    if traceparent is None or not traceparent.endswith("-01"):
        return {}
    return {"trace_id": traceparent[3:35], "span_id": traceparent[36:52]}


def tracer() -> Tracer | None:
    return _tracer


def current_traceparent() -> str | None:
    """Return the W3C traceparent of the current span, or None without a sampled span."""
    if _tracer is None:
        return None
    current = trace.get_current_span().get_span_context()
    return f"00-{current.trace_id:032x}-{current.span_id:016x}-01" if current.trace_flags.sampled else None
