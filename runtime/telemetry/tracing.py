"""Functions that create spans, at almost no cost while traces are off or the trace is not sampled.

How it works. Sampling is decided where a trace begins, before anything is allocated for it, and nobody
decides again.

- `begin` decides for a call: it follows the caller's traceparent, and without one samples at random, with the
  configured ratio. Without traces it only carries the caller's traceparent.
- `span` and `record_span` create a span within a sampled trace, and none in any other one.
- With a ratio of None the tracer decides for every span of a call.
- The traceparent of the current span is current in `trace_context`, and so is that of an unsampled trace.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from random import random
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer

from runtime.grpc.rpc_error import RpcError
from runtime.telemetry import trace_context
from runtime.telemetry.span_contexts import (
    create_context,
    create_links,
    format_traceparent,
    parse_span_context,
)

if TYPE_CHECKING:
    from runtime.telemetry.finished_spans import SpanRecorder

Attributes = Mapping[str, str | int | float | bool]

_NO_SPAN: AbstractContextManager[Span] = nullcontext(trace.INVALID_SPAN)
_tracer: Tracer | None = None
_ratio: float | None = None
_recorder: "SpanRecorder | None" = None
"""Records finished spans; None if the tracer has to."""
_open_spans: dict[str, Span] = {}
"""The spans that have not ended and may have children, by their traceparents."""


def configure(tracer: Tracer | None, ratio: float | None) -> None:
    """Switch traces on, or off if there is no tracer.

    Args:
        tracer: creates the spans.
        ratio: the ratio of new traces to sample, 0 to 1; None if the tracer samples.
    """
    global _tracer, _ratio, _recorder
    _tracer, _ratio, _recorder = tracer, ratio, None
    if tracer is not None and ratio is not None:
        from runtime.telemetry.finished_spans import create_recorder  # imports the SDK

        _recorder = create_recorder(tracer)


def is_on() -> bool:
    return _tracer is not None


def begin(parent: str | None) -> str | None:
    """Decide for a call whether its trace is sampled; if not, return the traceparent to carry.

    Args:
        parent: the caller's traceparent, parsed; None if the call begins a trace.

    Returns:
        None if the call has a span; without traces, the caller's traceparent.
    """
    if _tracer is None:
        return parent
    if _ratio is None:
        return None
    if parent is not None:
        return None if trace_context.is_sampled(parent) else parent
    return None if random() < _ratio else trace_context.begin_unsampled()  # noqa: S311 - no secret


def span(
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: str | None = None,
    attributes: Attributes | None = None,
    links: Iterable[str | None] = (),
) -> AbstractContextManager[Span]:
    """Return a context manager that starts a span and makes it the current one.

    It does nothing, and yields an invalid span, within a trace that is not sampled and outside of any trace.

    Args:
        name: the span's name, from a small set of names.
        kind: the span's kind.
        parent: the traceparent of the parent; None for the current one. A malformed one begins no trace.
        attributes: attributes that the span has from its start.
        links: the traceparents of linked spans.
    """
    traceparent = trace_context.get_current() if parent is None else parent
    if _tracer is None or not trace_context.is_sampled(traceparent) or not parse_span_context(traceparent):
        return _NO_SPAN
    context = None if parent is None else create_context(parent)
    return _CurrentSpan(_tracer.start_span(name, context, kind, attributes, create_links(links)))


def begin_span(
    name: str, *, kind: SpanKind, parent: str | None, attributes: Attributes, is_long: bool = False
) -> AbstractContextManager[Span]:
    """Return a context manager as `span` does, for a call that `begin` has given a span.

    Args:
        name: as for `span`.
        kind: as for `span`.
        parent: the caller's traceparent; None if the call begins a trace.
        attributes: as for `span`.
        is_long: whether the call may last so long that `find_open_span` must not find it, since spans of all
            that it does would fill its trace.
    """
    if _tracer is None:
        return _NO_SPAN
    context = Context() if parent is None else create_context(parent)
    return _CurrentSpan(_tracer.start_span(name, context, kind, attributes), is_long=is_long)


class _CurrentSpan:
    """Makes a span the current one and ends it, at half the cost of OpenTelemetry's own context manager."""

    __slots__ = ("_carried", "_is_long", "_span", "_token", "_traceparent")

    def __init__(self, span: Span, *, is_long: bool = False) -> None:
        self._span, self._is_long = span, is_long

    def __enter__(self) -> Span:
        self._token = attach(trace.set_span_in_context(self._span))
        self._traceparent = format_traceparent(self._span)
        self._carried = trace_context.set_current(self._traceparent)
        if not self._is_long:
            _open_spans[self._traceparent] = self._span
        return self._span

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        detach(self._token)
        trace_context.reset(self._carried)
        _open_spans.pop(self._traceparent, None)
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
    links: Iterable[str | None] = (),
    error: str = "",
) -> str | None:
    """Record a finished span, provided that its parent was sampled; return its traceparent.

    Args:
        name: the span's name, from a small set of names.
        parent: the traceparent of the parent.
        start_ns: start in nanoseconds since 1970.
        end_ns: end in nanoseconds since 1970.
        kind: the span's kind.
        attributes: the span's attributes.
        links: the traceparents of linked spans.
        error: the class of the error with which the work failed; empty if it did not.
    """
    if _tracer is None or not trace_context.is_sampled(parent):
        return None
    if (parent_context := parse_span_context(parent)) is None:
        return None
    linked = create_links(links)
    if _recorder is not None:
        times = start_ns, end_ns
        context = _recorder.record(name, parent_context, kind, attributes, linked, times, error)
        return f"{parent[:36]}{context.span_id:016x}-01"
    span = _tracer.start_span(name, create_context(parent), kind, attributes, linked, start_time=start_ns)
    if error:
        span.set_attribute("error.type", error)
        span.set_status(StatusCode.ERROR)
    span.end(end_ns)
    return format_traceparent(span)


def find_open_span(traceparent: str | None) -> Span | None:
    """Return a span of this process that has not ended, by its traceparent."""
    return None if traceparent is None else _open_spans.get(traceparent)


def add_link(traceparent: str, linked: str | None) -> None:
    """Add a link to a span of this process, unless it has ended."""
    if (span := _open_spans.get(traceparent)) is not None and (context := parse_span_context(linked)):
        span.add_link(context)
